from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from adapters.openadr.adapter import OpenAdrAdapter
from adapters.openadr.config import OpenAdrVen, OpenAdrVtn
from firmware_sim.servers.openadr import Decide, SiteVen, VenTls
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint, SetpointOutcome
from marketplace_core.simtime import AffineTime
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

DEVICE = "dev_site"
VEN_NAME = "carpark"
GOLDEN = Path(__file__).parents[3] / "golden" / "openadr"
MARKET_EPOCH = datetime(2018, 7, 10, 20, 0, tzinfo=UTC)


class WallClock:
    def __init__(self, time_map: AffineTime) -> None:
        self._map = time_map

    def now(self) -> datetime:
        return self._map.to_market(datetime.now(UTC))

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds / self._map.speed

    async def sleep_until(self, at: datetime) -> None:
        await asyncio.sleep(max(0.0, (self._map.to_wall(at) - datetime.now(UTC)).total_seconds()))


class Sink:
    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.quarantined: list[tuple[str, str, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.error: Exception | None = None

    async def store(self, readings: Sequence[Reading]) -> None:
        self.entered.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.readings.extend(readings)

    def quarantine(self, *, source: str, reason: str, evidence: bytes, device_id: str = "") -> None:
        self.quarantined.append((source, reason, evidence))

    def noticed(self, *, device_id: str, kind: FlagKind, since: datetime, evidence: str) -> None:
        raise AssertionError(f"{device_id}: {kind} ({evidence})")


class Street:
    """A VTN and a VEN over loopback, at the demo's speed."""

    def __init__(self, folder: Path, *, speed: float = 60.0) -> None:
        self.folder = folder
        self.map = AffineTime(MARKET_EPOCH, datetime.now(UTC), speed)
        self.clock = WallClock(self.map)
        self.sink = Sink()
        self.profile = DeviceProfile(
            device_id=DEVICE,
            protocol="openadr",
            min_kw=Kw(-200.0),
            max_kw=Kw(0.0),
            lease=LeaseKind.EVENT_END,
        )
        self.fingerprint = ""
        self.vtn_tls: dict[str, Path] = {}
        self.neighbours: list[OpenAdrVen] = []

    async def until(self, condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - another party's state has no event
                await asyncio.sleep(0.005)

    async def issue(self, adapter: OpenAdrAdapter, *setpoints: Setpoint) -> list[SetpointOutcome]:
        return [outcome async for batch in adapter.issue(setpoints) for outcome in batch]

    @property
    def ven_id(self) -> str:
        return OpenAdrVen(device_id=DEVICE, ven_name=VEN_NAME, profile=self.profile).ven_id

    def message(self, name: str) -> bytes:
        return (GOLDEN / f"{name}.xml").read_bytes()

    async def post(
        self, port: int, service: str, body: bytes, media_type: str = "application/xml"
    ) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{port}/OpenADR2/Simple/2.0b/{service}"
        headers = {"Content-Type": media_type}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=body, headers=headers) as response,
        ):
            return response.status, await response.read()

    def adapter(self, *, port: int = 0, timeout_s: float = 5.0) -> OpenAdrAdapter:
        config = OpenAdrVtn(
            host="127.0.0.1",
            port=port,
            vtn_id="vtn-test",
            state=self.folder / "openadr.json",
            lab=not self.vtn_tls,
            poll_s=0.2,
            answer_timeout_s=timeout_s,
            **self.vtn_tls,
        )
        ven = OpenAdrVen(
            device_id=DEVICE,
            ven_name=VEN_NAME,
            profile=self.profile,
            fingerprint=self.fingerprint,
        )
        return OpenAdrAdapter(config, [ven, *self.neighbours], clock=self.clock, time_map=self.map)

    @contextlib.asynccontextmanager
    async def serving(
        self,
        *,
        port: int = 0,
        timeout_s: float = 5.0,
        restore: Sequence[Setpoint] | None = (),
    ) -> AsyncIterator[OpenAdrAdapter]:
        adapter = self.adapter(port=port, timeout_s=timeout_s)
        if restore is not None:
            adapter.restore(restore)
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(adapter.run(self.sink, ready=ready.set))
            if restore is not None:
                await ready.wait()
            else:
                await self.until(lambda: adapter.port != 0)
            try:
                yield adapter
            finally:
                task.cancel()

    @contextlib.asynccontextmanager
    async def ven(
        self,
        port: int,
        decide: Decide = lambda _event: True,
        *,
        name: str = VEN_NAME,
        tls: VenTls | None = None,
    ) -> AsyncIterator[SiteVen]:
        scheme = "https" if tls else "http"
        ven = SiteVen(
            vtn_url=f"{scheme}://127.0.0.1:{port}/OpenADR2/Simple/2.0b",
            ven_name=name,
            resource_id=DEVICE,
            decide=decide,
            poll_s=0.02,
            report_s=0.02,
            tls=tls,
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(ven.run())
            try:
                yield ven
            finally:
                task.cancel()

    def setpoint(
        self,
        number: int = 1,
        *,
        power_kw: float = -80.0,
        order: str = "ord_1",
        revision: int = 0,
        starts_in_s: float = -1.0,
        lasts_s: float = 3600.0,
        device_id: str = DEVICE,
    ) -> Setpoint:
        """Market seconds from now."""
        start = self.clock.now() + timedelta(seconds=starts_in_s)
        return Setpoint(
            id=f"sp_{number}",
            order_id=order,
            revision=revision,
            device_id=device_id,
            power_kw=Kw(power_kw),
            valid_from=start,
            valid_until=start + timedelta(seconds=lasts_s),
            lease_s=lasts_s,
        )


@pytest.fixture
def street(tmp_path: Path) -> Street:
    return Street(tmp_path)
