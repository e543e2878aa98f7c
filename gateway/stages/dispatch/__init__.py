"""Dispatch: setpoints by deadline; acknowledgement, read back, lease.

`stage.py` turns a plan into setpoints. `conductor.py` sends them when they are due,
refreshes their leases, ends them. `recovery.py` reads devices back after a restart.
`outcomes.py` journals what became of each.
"""

from __future__ import annotations

from gateway.stages.dispatch.stage import CONSUMES, EMITS, Dispatch

__all__ = ["CONSUMES", "EMITS", "Dispatch"]
