"""Baselines: what a portfolio would have done without the order.

`METHODS` is the registry: a contract names a key of it. Every method carries the rule
set, with sources and date, that it applies. A method refuses rather than guesses.
"""

from __future__ import annotations

from marketplace_core.verification.baselines.registry import METHODS, compute
from marketplace_core.verification.baselines.request import BaselineRequest
from marketplace_core.verification.windows import PowerHistory

__all__ = ["METHODS", "BaselineRequest", "PowerHistory", "compute"]
