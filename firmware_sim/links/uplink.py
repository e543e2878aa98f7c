"""The gateway's way to the broker, lost while the scenario says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from firmware_sim.links.base import HOST, Addresses, Moments, Readings
from firmware_sim.scenario import Incident
from firmware_sim.servers.uplink import Uplink


class UplinkLink:
    """A relay between the gateway and the broker; no device stands behind it."""

    def __init__(
        self, incidents: Sequence[Incident], *, broker: tuple[str, int], port: int = 0
    ) -> None:
        """Port 0 = a free one."""
        self._losses = [
            (one.at, one.until) for one in incidents
            if one.kind == "uplink_lost" and one.until is not None
        ]  # fmt: skip
        self._uplink = Uplink(broker, host=HOST, port=port)

    def disturb(self, at: datetime) -> None:
        """Cut and restore it."""
        self._uplink.switch(up=not any(start <= at < end for start, end in self._losses))

    def commands(self) -> Mapping[str, float | None]:
        """None: it has no devices."""
        return {}

    def show(self, moments: Moments) -> None:
        """It has no devices."""

    def report(self, readings: Readings) -> None:
        """It has no devices."""

    def addresses(self) -> Addresses:
        """Where the gateway finds its broker."""
        return {"uplink": {"host": HOST, "port": self._uplink.port}}

    async def run(self, started: Callable[[], None]) -> None:
        """Relay until cancelled."""
        await self._uplink.run(started)
