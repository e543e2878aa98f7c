"""Closed unions of outcomes that are not facts; match on them and end with `assert_never`."""

from __future__ import annotations

import msgspec

from marketplace_core.units import Kw


class BaselineValue(msgspec.Struct, frozen=True, kw_only=True):
    """A baseline that the method could stand behind."""

    kw: tuple[Kw, ...]
    """One mean power per settlement period of the event, injection positive."""
    days: tuple[str, ...]
    """ISO dates of the days used, local to the market."""
    adjustment: float
    """Ratio or kW that was applied; 1.0 (ratio) or 0.0 (additive) when none was."""
    note: str = ""
    """Caveats: a refused adjustment and its reason, a window that can be gamed, ..."""


class BaselineRefused(msgspec.Struct, frozen=True, kw_only=True):
    """The method refuses rather than guesses."""

    reason: str


BaselineResult = BaselineValue | BaselineRefused
