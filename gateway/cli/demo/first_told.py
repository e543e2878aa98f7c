"""When devices were first told, by the facts of an order: what came later hides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from gateway.cli.demo.world import Json


def first_told(facts: Iterable[Json]) -> tuple[dict[str, str], dict[str, str]]:
    """By device: when a setpoint was first issued, and when one was first in force.

    The facts say so; the state of a setpoint only knows when it was last read back.
    """
    issued: dict[str, str] = {}
    applied: dict[str, str] = {}
    begins: dict[str, datetime] = {}
    for record in facts:
        fact = record["fact"]
        for setpoint in fact["setpoints"] if fact["kind"] == "SetpointsIssued" else ():
            issued.setdefault(setpoint["device_id"], record["at"])
            begins[setpoint["id"]] = datetime.fromisoformat(setpoint["valid_from"])
        for outcome in fact["outcomes"] if fact["kind"] == "SetpointsApplied" else ():
            at = max(datetime.fromisoformat(outcome["at"]), begins[outcome["setpoint_id"]])
            applied.setdefault(outcome["device_id"], at.isoformat())
    return issued, applied


def first_reading(series: Iterable[Sequence[float]], since: str | None) -> str | None:
    """Start of the first reading that lies wholly after an instant."""
    if since is None:
        return None
    instant = datetime.fromisoformat(since).timestamp()
    start = min((at for at, _, _ in series if at >= instant), default=None)
    return None if start is None else datetime.fromtimestamp(start, UTC).isoformat()
