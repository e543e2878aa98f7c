"""What every link does, whatever its protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from firmware_sim.plant import Moment
from firmware_sim.records import Recorder
from marketplace_core.verification.reading import Reading

Moments = Mapping[str, Moment]
Readings = Mapping[str, Reading]
Addresses = Mapping[str, Mapping[str, Any]]
"""By section of the ready file: `{"modbus": {device: {host, port, unit}}}`."""
HOST = "127.0.0.1"


class Link(Protocol):
    """The servers of one protocol."""

    def disturb(self, at: datetime) -> None:
        """Begin, carry out and end the faults that are due at a market instant."""

    def commands(self) -> Mapping[str, float | None]:
        """Power that each of its devices is told to hold now; None = its fallback."""

    def show(self, moments: Moments) -> None:
        """Take over what the devices did in a step."""

    def report(self, readings: Readings) -> None:
        """Send the readings of a full minute."""

    def addresses(self) -> Addresses:
        """Where its servers can be reached, once they listen."""

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until cancelled; call `started` once every server listens."""


def noted(record: Recorder) -> Callable[[Mapping[str, Any]], None]:
    """A device's own log entry, as a line of the wire record."""

    def note(entry: Mapping[str, Any]) -> None:
        detail = {key: value for key, value in entry.items() if key != "device"}
        action = "command" if "received" in entry else "device"
        record(entry["device"], action, **detail)

    return note
