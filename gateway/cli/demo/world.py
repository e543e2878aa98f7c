"""What the day's script needs of the world it runs in: sockets and the wall, or virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from gateway.client import Client

Json = Mapping[str, Any]
Say = Callable[[str], None]


class World(Protocol):
    """Devices, a gateway, and the time that passes."""

    def start(self) -> None:
        """Start devices and gateway; market time stands."""

    def begin(self) -> None:
        """Let market time run: the day begins."""

    def seconds_until(self, at: datetime, since: float) -> float | None:
        """Wall seconds from a Unix instant to a market one; None where time is virtual."""

    def client(self, organisation: str) -> Client:
        """One organisation's access to the gateway that runs now."""

    def now(self) -> datetime:
        """Market time."""

    def wait_until(self, at: datetime) -> None:
        """Return once market time has reached an instant."""

    def pause(self) -> None:
        """Let a little time pass: a minute of the market at most."""

    def cut_uplink(self) -> None:
        """Cut the link between the gateway and its broker."""

    def mend_uplink(self) -> None:
        """Mend it."""

    def kill_gateway(self) -> None:
        """End the gateway without warning."""

    def start_gateway(self) -> None:
        """Start it again over what it left on disk."""

    def stop(self) -> Mapping[str, int]:
        """End everything in order; exit codes by name."""

    def abort(self) -> None:
        """End everything at once, after a failure."""
