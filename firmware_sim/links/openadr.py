"""Car parks that are VENs of one VTN, and come back when it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from firmware_sim.agents import opts_out
from firmware_sim.links.base import Addresses, Moments, Readings
from firmware_sim.records import Recorder
from firmware_sim.scenario import CarPark
from firmware_sim.servers.openadr import Decide, SiteEvent, SiteVen, VenTls
from firmware_sim.world import Fault
from marketplace_core.errors import ConfigError
from marketplace_core.ports import TimeMap

_POLL_MARKET_S = 90.0
_REPORT_MARKET_S = 60.0
_LONGEST_POLL_S = 10.0
_SHORTEST_S = 0.25


class OpenAdrLink:
    """The VENs of a scenario."""

    def __init__(
        self,
        sites: Sequence[CarPark],
        faults: Sequence[Fault] = (),
        *,
        vtn_url: str,
        time_map: TimeMap,
        record: Recorder,
        tls: Path | None = None,
    ) -> None:
        """Polls and reports are as fast as simulated time asks for, within reason.

        `tls` holds `ca.pem`, and `<ven>.pem` and `<ven>.key` of every VEN.
        Raises: ConfigError when one of them is missing.
        """
        self._map = time_map
        poll_s = min(_LONGEST_POLL_S, max(_SHORTEST_S, _POLL_MARKET_S / time_map.speed))
        self._vens = {
            one.id: SiteVen(
                vtn_url=vtn_url, ven_name=one.ven_name, resource_id=one.id, poll_s=poll_s,
                decide=self._decision(one.id, faults, record),
                report_s=max(_SHORTEST_S, _REPORT_MARKET_S / time_map.speed),
                tls=None if tls is None else certificates(tls, one.ven_name),
            )
            for one in sites
        }  # fmt: skip

    def disturb(self, at: datetime) -> None:
        """Nothing happens by itself: an owner opts out when it is asked."""

    def commands(self) -> Mapping[str, float | None]:
        """What the event in force limits each site to."""
        now = datetime.now(UTC)
        return {name: ven.commanded_kw(now) for name, ven in self._vens.items()}

    def show(self, moments: Moments) -> None:
        """Sites report means only."""

    def report(self, readings: Readings) -> None:
        """Queue a minute's mean in every VEN."""
        for name, ven in self._vens.items():
            ven.measured(self._map.to_wall(readings[name].start), readings[name].power_kw)

    def addresses(self) -> Addresses:
        """None: VENs are clients of the VTN."""
        return {}

    async def run(self, started: Callable[[], None]) -> None:
        """Poll and report for every site."""
        started()
        async with asyncio.TaskGroup() as tasks:
            for ven in self._vens.values():
                tasks.create_task(ven.run())

    def _decision(self, device: str, faults: Sequence[Fault], record: Recorder) -> Decide:
        """Opt in unless the owner does not take part, and write it down."""
        own = [fault for fault in faults if fault.device == device]

        def decide(event: SiteEvent) -> bool:
            span = (self._map.to_market(event.start), self._map.to_market(event.end))
            joins = not opts_out(own, *span)
            record(
                device, "command", received="event", id=event.id,
                modification=event.modification, status=event.status, load_kw=event.load_kw,
                opted_in=joins,
            )  # fmt: skip
            return joins

        return decide


def certificates(folder: Path, ven_name: str) -> VenTls:
    """The files of one VEN. Raises ConfigError naming one that is missing."""
    tls = VenTls(folder / f"{ven_name}.pem", folder / f"{ven_name}.key", folder / "ca.pem")
    for path in (tls.certificate, tls.key, tls.ca_certificate):
        if not path.is_file():
            msg = f"{path} is missing: --tls needs ca.pem, and <ven>.pem and <ven>.key of every VEN"
            raise ConfigError(msg)
    return tls
