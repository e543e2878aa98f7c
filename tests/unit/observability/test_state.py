"""Gauges say what is now: silent devices, links, leases, running orders, the signed root."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from gateway.live import LiveState
from gateway.observability.compliance import Instruction
from gateway.observability.health import Health
from gateway.observability.loop_lag import measure_loop_lag
from gateway.observability.metrics import Metrics
from gateway.observability.state import StateGauges, Watched
from gateway.observability.tally import count_facts
from gateway.store.engine import migrate, open_engine
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.events import Fact, OrderRejected, OrderSettled, OrderStopped
from marketplace_core.ports import Record
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class SetClock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds


class Devices:
    """As much of an adapter as gauges look at."""

    def __init__(self, protocol: str, *names: str) -> None:
        self.protocol = protocol
        self.present: set[str] = set()
        self._profiles = [
            DeviceProfile(
                device_id=name, protocol=protocol, min_kw=Kw(-7), max_kw=Kw(0), telemetry_s=10.0
            )
            for name in names
        ]

    def profiles(self) -> Sequence[DeviceProfile]:
        return self._profiles

    def connected(self, device_id: str) -> bool:
        return device_id in self.present


class Scene:
    def __init__(self, engine: Engine, *, per_device: bool = False) -> None:
        self.clock = SetClock()
        self.chargers = Devices("mqtt", "ev-1", "ev-2")
        self.batteries = Devices("modbus", "bat-1")
        adapters = {"mqtt": self.chargers, "modbus": self.batteries}
        profiles = {p.device_id: p for a in adapters.values() for p in a.profiles()}
        self.live = LiveState(profiles, self.clock)  # type: ignore[arg-type]
        self.links = {"mqtt": True, "modbus": False}
        self.health = Health(
            {"api", "mqtt"}, {name: lambda name=name: self.links[name] for name in self.links}
        )
        self.leases: dict[str, float] = {}
        self.states: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.plan: list[Instruction] = []
        self.rooted: datetime | None = None
        self.metrics = Metrics()
        watched = Watched(
            engine=engine, clock=self.clock, live=self.live, health=self.health,  # type: ignore[arg-type]
            adapters=adapters,  # type: ignore[arg-type]
            leases=lambda: self.leases, setpoints=lambda: self.states,
            running=lambda: self.running, instructions=lambda: self.plan,
            roots_current_at=lambda: self.rooted, queues={"market": lambda: 3},
        )  # fmt: skip
        self.gauges = StateGauges(self.metrics, watched, per_device=per_device)

    def hear(self, device: str, power: float) -> None:
        reading = Reading(
            series=device, start=self.clock.at - timedelta(seconds=10), seconds=10.0,
            power_kw=Kw(power),
        )  # fmt: skip
        self.live.update([reading])

    def values(self, name: str, label: str = "protocol") -> dict[str, float]:
        self.gauges.refresh()
        text = self.metrics.exposition().decode()
        return {
            sample.labels.get(label, ""): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'market.db'}")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def scene(engine: Engine) -> Scene:
    return Scene(engine)


def test_a_device_that_was_never_heard_is_counted_until_it_is(scene: Scene) -> None:
    assert scene.values("flexway_devices_never_reported") == {
        "modbus": 1.0, "mqtt": 2.0, "openadr": 0.0, "sparkplug": 0.0, "webhook": 0.0,
    }  # fmt: skip
    scene.hear("ev-1", -7.0)
    assert scene.values("flexway_devices_never_reported")["mqtt"] == 1.0


def test_age_counts_from_the_start_until_something_is_heard(scene: Scene) -> None:
    scene.hear("bat-1", 0.0)
    scene.clock.at += timedelta(seconds=90)
    ages = scene.values("flexway_reading_age_seconds_max")
    assert ages == {"modbus": 90.0, "mqtt": 90.0, "openadr": 0.0, "sparkplug": 0.0, "webhook": 0.0}
    scene.hear("ev-1", -7.0)
    assert scene.values("flexway_reading_age_seconds_max")["mqtt"] == 90.0  # ev-2 is silent
    scene.hear("ev-2", -7.0)
    assert scene.values("flexway_reading_age_seconds_max")["mqtt"] == 0.0


def test_presence_and_links_are_two_things(scene: Scene) -> None:
    scene.chargers.present = {"ev-2"}
    assert scene.values("flexway_devices")["mqtt"] == 2.0
    assert scene.values("flexway_devices_connected") == {
        "modbus": 0.0, "mqtt": 1.0, "openadr": 0.0, "sparkplug": 0.0, "webhook": 0.0,
    }  # fmt: skip
    assert scene.values("flexway_adapter_up") == {
        "modbus": 0.0,
        "mqtt": 1.0,
        "openadr": 0.0,
        "sparkplug": 0.0,
        "webhook": 0.0,
    }
    assert scene.health.down == ["modbus"]


def test_compliance_shows_who_does_not_follow(scene: Scene) -> None:
    scene.plan = [
        Instruction(device_id=device, protocol="mqtt", reference_kw=Kw(-7), power_kw=Kw(-3))
        for device in ("ev-1", "ev-2")
    ]
    scene.running = {"ord-1": 0}
    scene.hear("ev-1", -3.0)
    scene.hear("ev-2", -7.0)
    assert scene.values("flexway_dispatch_instructed_watts")["mqtt"] == 8000.0
    assert scene.values("flexway_dispatch_measured_watts")["mqtt"] == 4000.0
    assert scene.values("flexway_dispatch_compliance_ratio")["mqtt"] == 0.5
    assert math.isnan(scene.values("flexway_dispatch_compliance_ratio")["modbus"])
    scene.clock.at += timedelta(seconds=51)  # more than five intervals of silence
    assert scene.values("flexway_dispatch_compliance_ratio")["mqtt"] == 0.0
    scene.plan = []
    assert math.isnan(scene.values("flexway_dispatch_compliance_ratio")["mqtt"])
    assert scene.values("flexway_dispatch_instructed_watts")["mqtt"] == 0.0


def test_the_shortest_lease_is_none_without_one(scene: Scene) -> None:
    assert math.isnan(scene.values("flexway_lease_seconds_left_min")[""])
    scene.leases = {"ev-1": 40.0, "bat-1": 12.5}
    assert scene.values("flexway_lease_seconds_left_min") == {"": 12.5}
    assert scene.values("flexway_leases_held") == {"": 2.0}
    scene.leases = {}
    assert math.isnan(scene.values("flexway_lease_seconds_left_min")[""])


def test_states_that_are_over_go_back_to_zero(scene: Scene) -> None:
    scene.states = {"unconfirmed": 2, "applied": 5}
    assert scene.values("flexway_setpoints_open", "state")["unconfirmed"] == 2.0
    scene.states = {}
    assert set(scene.values("flexway_setpoints_open", "state").values()) == {0.0}


def test_a_root_that_was_never_written_grows_old(scene: Scene) -> None:
    scene.clock.at += timedelta(seconds=400)
    assert scene.values("flexway_journal_root_age_seconds") == {"": 400.0}
    scene.rooted = scene.clock.at
    assert scene.values("flexway_journal_root_age_seconds") == {"": 0.0}


def test_ready_waits_for_all_but_those_that_are_started_without(scene: Scene) -> None:
    assert scene.values("flexway_ready") == {"": 0.0}
    scene.health.ready("api")
    assert scene.values("flexway_ready") == {"": 0.0}
    scene.health.start_without(["mqtt"])
    assert scene.values("flexway_ready") == {"": 1.0}
    assert scene.values("flexway_writer_queue_depth", "writer")["market"] == 3.0


def test_no_device_has_a_label_unless_it_is_asked_for(engine: Engine, scene: Scene) -> None:
    scene.hear("ev-1", -7.0)
    scene.gauges.refresh()
    assert b"ev-1" not in scene.metrics.exposition()
    talkative = Scene(engine, per_device=True)
    talkative.hear("ev-1", -7.0)
    talkative.leases = {"ev-1": 9.0}
    talkative.clock.at += timedelta(seconds=30)
    ages = talkative.values("flexway_device_reading_age_seconds", "device_id")
    assert ages == {"ev-1": 30.0, "ev-2": 30.0, "bat-1": 30.0}
    assert talkative.values("flexway_device_lease_seconds_left", "device_id") == {"ev-1": 9.0}
    assert talkative.values("flexway_device_connected", "device_id")["bat-1"] == 0.0


async def test_a_blocked_loop_is_late() -> None:
    observed: asyncio.Queue[float] = asyncio.Queue()
    measuring = asyncio.get_running_loop().create_task(
        measure_loop_lag(observed.put_nowait, every_s=0.01)
    )
    await asyncio.sleep(0)  # it waits for its timer now
    end = asyncio.get_running_loop().time() + 0.2
    while asyncio.get_running_loop().time() < end:
        pass  # nothing else gets a turn
    first = await observed.get()
    measuring.cancel()
    assert first >= 0.18


def record(fact: Fact) -> Record:
    return Record(shard=0, sequence=1, at=START, stream="ord-1", fact=fact)


def test_orders_are_counted_when_they_are_committed_and_once() -> None:
    metrics = Metrics()
    rejected = record(OrderRejected(order_id="ord-1", revision=0, reason="too late"))
    settled = [
        record(OrderSettled(order_id="ord-1", revision=0, version=version, lines=(), postings=()))
        for version in (1, 2, 3)
    ]
    stopped = record(OrderStopped(order_id="ord-1", at=START, by="org_b"))
    value = metrics.registry.get_sample_value
    assert value("flexway_orders_total", {"state": "stopped"}) == 0.0
    count_facts(metrics, [rejected, stopped])
    count_facts(metrics, settled)
    assert value("flexway_orders_total", {"state": "stopped"}) == 1.0
    assert value("flexway_orders_total", {"state": "rejected"}) == 1.0
    assert value("flexway_orders_total", {"state": "settled"}) == 1.0
    assert value("flexway_orders_total", {"state": "submitted"}) == 0.0
