"""A storm: every device of a fleet but a few loses its connection at once, and comes back.

Real Mosquitto, the real service and the fleet, each a process of its own. The few that stay
are sent setpoints all the time; how long each takes from the 202 of its order until its
acknowledgement is on the wire is what is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import msgpack
import numpy as np

from firmware_sim.fleet.gateway_settings import mqtt_devices
from firmware_sim.fleet.population import CHARGER, Population, populate
from gateway.children import Child
from tests.harness.lab import HOST, Lab, contract, next_period, wait_for

ORG = "org_seller"
PROBES = 8
_PERIODS = 240
_ORDER_EVERY_S = 0.4
_SEED = 7
_START_S = 240.0
_TRIES = 5
_MISSING_S = 240.0
_BEFORE_S = 15.0
"""Of orders before the storm."""


@dataclass(kw_only=True)
class Storm:
    """What a run measured; seconds."""

    devices: int
    """That lost their connection."""
    back_s: float
    """From the storm until the last of them was taken in by the broker again."""
    believed_s: float = 0.0
    """From the storm until the gateway believed all of them present again."""
    before: list[float] = field(default_factory=list)
    """From the 202 to the acknowledgement on the wire, of setpoints before the storm."""
    during: list[float] = field(default_factory=list)
    """Of setpoints while devices came back."""

    def percentile(self, name: str, percent: float) -> float:
        return float(np.percentile(getattr(self, name), percent))


class Fleet:
    """The fleet's process and its figures."""

    def __init__(
        self, folder: Path, port: int, count: int, *, storm_at: float, spread_s: float,
        spared: tuple[str, ...], interval_s: float,
    ) -> None:  # fmt: skip
        self._stats = folder / "fleet.stats.jsonl"
        self._stats.unlink(missing_ok=True)
        self._storm_at = storm_at
        scenario = folder / "storm.yaml"
        scenario.write_text(
            "name: storm\ntimeline:\n"
            f"  - fault: reconnect_storm\n    at: {storm_at}\n"
            f"    devices: {{without: {list(spared)}}}\n"
        )
        self.child = Child(
            "fleet",
            ["firmware_sim", "fleet", "mqtt", "--devices", str(count), "--seed", str(_SEED),
             "--broker-port", str(port), "--scenario", str(scenario), "--stats", str(self._stats),
             "--ready", str(folder / "fleet.ready.json"), "--spread", str(spread_s),
             "--interval", str(interval_s), "--organisation", ORG],
            folder,
        )  # fmt: skip

    def wait_up(self, seconds: float) -> None:
        """Until every device has been connected."""
        self._epoch = float(self.child.wait_ready(seconds)["epoch"])

    @property
    def storm_wall(self) -> float:
        """Wall time of the storm."""
        return self._epoch + self._storm_at

    def lines(self) -> list[dict[str, Any]]:
        text = self._stats.read_text().splitlines() if self._stats.exists() else []
        return [json.loads(line) for line in text if line.endswith("}")]

    def back_s(self, count: int) -> float | None:
        """Seconds from the storm until everybody was connected again; None = not yet."""
        after = [
            line
            for line in self.lines()
            if line["losses"] and line["connects"] >= count + line["losses"] and line["up"] == count
        ]
        return after[0]["wall"] - self.storm_wall if after else None


def probes_of(population: Population) -> tuple[str, ...]:
    """The chargers that stay connected and are sent setpoints."""
    cars = [name for name, kind in zip(population.ids, population.kinds, strict=True)
            if kind == CHARGER]  # fmt: skip
    return tuple(cars[:PROBES])


@contextmanager
def gateway(
    folder: Path, port: int, population: Population, telemetry_s: float
) -> Iterator[tuple[Lab, Child]]:
    """The real service with every device of the fleet bound to it."""
    lab = Lab(folder, datetime.now(UTC), speed=1.0, minutes=5)
    lab.wall_epoch = lab.market_epoch.timestamp()
    devices = mqtt_devices(population, organisation=ORG, telemetry_s=telemetry_s)
    for device in devices:
        # One long lease and plenty of notice: an order sends its setpoints at once, and once.
        device["profile"] |= {"lease_s": 14_400.0, "notice_s": 172_800.0}
    lab.sections["mqtt"] = {"port": port, "tls": False, "devices": devices,
                            "ack_timeout_s": 30.0}  # fmt: skip
    lab.write_settings()
    child = lab.start(wait=False)
    try:
        # Settings of ten thousand devices take their time to be read.
        lab.url = child.wait_ready(_START_S)["url"]
        wait_for(lambda: httpx.get(f"{lab.url}/readyz").is_success, seconds=60, what="readiness")
        yield lab, child
    finally:
        child.stop()
        lab.close()


def counter(lab: Lab, name: str) -> float:
    """The value of one of the gateway's metrics, with its labels if it has any."""
    text = httpx.get(f"{lab.url}/metrics", timeout=30.0).text
    found = re.search(rf"^flexway_{re.escape(name)} (\S+)", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def believed(lab: Lab) -> int:
    """MQTT devices that the gateway believes present."""
    return int(counter(lab, 'devices_connected{protocol="mqtt"}'))


class Probe:
    """Orders to the devices that stay, one after the other, and when each was acknowledged."""

    def __init__(self, lab: Lab, names: tuple[str, ...]) -> None:
        self._lab = lab
        self._names = names
        self._start = next_period(datetime.now(UTC) + timedelta(hours=1), 5)
        self._accepted: list[tuple[float, datetime]] = []
        self._acks: dict[str, float] = {}
        self._orders: dict[str, str] = {}
        self.took: list[tuple[float, float]] = []
        """Wall time of the 202, and seconds until the acknowledgement, of each setpoint."""
        self._accepted_at: dict[str, float] = {}
        self._need = ""

    def sign(self) -> None:
        """A contract over all periods that orders will be for."""
        assets = [
            {"id": f"ast-{name}", "feeder": "F-114", "technology": "ev_charger",
             "devices": [name], "meter": name, "measurement_point": "device", "up_kw": 3.0}
            for name in self._names
        ]  # fmt: skip
        end = self._start + _PERIODS * timedelta(minutes=5)
        window = {"start": self._start.isoformat(), "end": end.isoformat()}
        self._need = contract(self._lab, assets, kw=2.0 * len(assets), window=window)

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        async with aiomqtt.Client(HOST, port) as client:
            await client.subscribe([(f"flexway/v1/{ORG}/+/{name}/+", 1) for name in self._names])
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(self._listen(client))
                yield
                task.cancel()

    async def ordering(self, until: Any) -> None:
        """Submit an order now and then until a condition holds."""
        number = len(self._accepted_at)
        while not until():
            if number == _PERIODS:
                raise TimeoutError(f"waited {_PERIODS} orders for {until}")
            begins = self._start + number * timedelta(minutes=5)
            span = {"start": begins.isoformat(),
                    "end": (begins + timedelta(minutes=5)).isoformat()}  # fmt: skip
            order = {"need_id": self._need, "kw": 1.5 * len(self._names), "interval": span}
            made = await asyncio.to_thread(self._submit, order, f"storm-{number}")
            self._accepted_at[str(made["id"])] = time.time()
            self._match()
            number += 1
            await asyncio.sleep(_ORDER_EVERY_S)

    def _submit(self, order: dict[str, Any], key: str) -> Any:
        """Again with the same key where the connection ended: an idle one may have been closed."""
        for _ in range(_TRIES):
            try:
                return self._lab.client("org_buyer").submit_order(order, key=key)
            except httpx.TransportError:
                continue
        raise TimeoutError(f"the gateway ended {_TRIES} connections in a row")

    @property
    def missing(self) -> int:
        """Setpoints that are not acknowledged yet."""
        return len(self._accepted_at) * len(self._names) - len(self.took)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            kind = str(message.topic).rpartition("/")[2]
            if kind == "command":
                told = msgpack.unpackb(message.payload)
                self._orders[told["id"]] = told["order_id"]
            elif kind == "ack":
                told = msgpack.unpackb(message.payload)
                assert told["status"] == "applied", told
                self._acks[told["id"]] = time.time()
                self._match()

    def _match(self) -> None:
        """An acknowledgement may be faster than the 202 gets here: then it took nothing."""
        for setpoint, at in list(self._acks.items()):
            accepted = self._accepted_at.get(self._orders.get(setpoint, ""))
            if accepted is not None:
                self.took.append((accepted, max(0.0, at - accepted)))
                del self._acks[setpoint]


async def storm(
    folder: Path, port: int, count: int, *, storm_at: float, spread_s: float, interval_s: float
) -> Storm:
    """`count` devices lose their connection `storm_at` seconds after the fleet's start."""
    whole = count + PROBES
    population = populate("mqtt", whole, seed=_SEED)
    spared = probes_of(population)
    with gateway(folder, port, population, interval_s) as (lab, _):
        probe = Probe(lab, spared)
        await asyncio.to_thread(probe.sign)
        fleet = Fleet(folder, port, whole, storm_at=storm_at, spread_s=spread_s, spared=spared,
                      interval_s=interval_s)  # fmt: skip
        try:
            await asyncio.to_thread(fleet.wait_up, storm_at)
            await asyncio.to_thread(_until_believed, lab, whole)
            async with probe.listening(port):
                await asyncio.sleep(max(0.0, fleet.storm_wall - _BEFORE_S - time.time()))
                await probe.ordering(lambda: time.time() > fleet.storm_wall)
                await probe.ordering(lambda: fleet.back_s(whole) is not None)
                back_s = fleet.back_s(whole)
                assert back_s is not None, fleet.lines()[-1]
                await asyncio.to_thread(_until_believed, lab, whole)
                believed_s = time.time() - fleet.storm_wall
                async with asyncio.timeout(_MISSING_S):
                    while probe.missing:  # noqa: ASYNC110 - another process's work has no event
                        await asyncio.sleep(0.05)
        finally:
            fleet.child.stop()
    storm_wall = fleet.storm_wall
    return Storm(
        devices=count, back_s=back_s, believed_s=believed_s,
        before=[took for at, took in probe.took if at < storm_wall],
        during=[took for at, took in probe.took if storm_wall <= at <= storm_wall + back_s],
    )  # fmt: skip


def bare_back_s(
    folder: Path, port: int, count: int, *, storm_at: float, spread_s: float, interval_s: float
) -> float:
    """The same storm with nobody at the other end of the broker."""
    whole = count + PROBES
    spared = probes_of(populate("mqtt", whole, seed=_SEED))
    fleet = Fleet(folder, port, whole, storm_at=storm_at, spread_s=spread_s, spared=spared,
                  interval_s=interval_s)  # fmt: skip
    try:
        fleet.wait_up(storm_at)
        return float(wait_for(lambda: fleet.back_s(whole), seconds=storm_at + 90, what="the return",
                              every_s=0.5))  # fmt: skip
    finally:
        fleet.child.stop()


def _until_believed(lab: Lab, count: int) -> None:
    wait_for(lambda: believed(lab) == count, seconds=60, what=f"{count} devices", every_s=0.5)
