"""Gauges that are read when somebody asks: devices, leases, running orders, queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from gateway.live import Live
from gateway.observability.compliance import Instruction, compliance
from gateway.observability.health import Health
from gateway.observability.metrics import OPEN_SETPOINTS, Metrics
from gateway.store.engine import run_read
from gateway.store.journal import read_heads
from gateway.store.setpoints import ends_in_force
from marketplace_core.dispatch.leases import seconds_left, unattended
from marketplace_core.dispatch.profile import LeaseKind
from marketplace_core.ports import Clock, DeviceAdapter

_WATTS_PER_KW = 1000.0
_DEVICE_LABELS = ("device_id", "protocol")


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What the gauges are read from, handed over by the bootstrap."""

    engine: Engine
    clock: Clock
    live: Live
    adapters: Mapping[str, DeviceAdapter]
    health: Health
    leases: Callable[[], Mapping[str, float]]
    """Market seconds left per device that holds a lease."""
    setpoints: Callable[[], Mapping[str, int]]
    """Setpoints whose time is not over, by state."""
    running: Callable[[], Mapping[str, int]]
    """Orders that run now."""
    instructions: Callable[[], list[Instruction]]
    """What running orders ask of devices."""
    roots_current_at: Callable[[], datetime | None]
    """When the signed root last said what the journal said; None before the first."""
    queues: Mapping[str, Callable[[], int]]
    """Units of work that wait, by writer."""


class StateGauges:
    """Sets every gauge from what it watches; may be called from any thread."""

    def __init__(self, metrics: Metrics, watched: Watched, *, per_device: bool = False) -> None:
        """`per_device` adds series with a label per device."""
        self._metrics = metrics
        self._watched = watched
        self._began = watched.clock.now()
        if per_device:
            metrics.registry.register(_PerDevice(watched, self._age))

    def refresh(self) -> None:
        """Read everything anew."""
        self._devices()
        self._dispatch()
        self._service()

    def _devices(self) -> None:
        metrics, watched = self._metrics, self._watched
        now = watched.clock.now()
        for protocol, adapter in watched.adapters.items():
            devices = [profile.device_id for profile in adapter.profiles()]
            newest = [watched.live.newest(device) for device in devices]
            connected = sum(adapter.connected(device) for device in devices)
            ages = [self._age(device, now) for device in devices]
            metrics.devices.labels(protocol).set(len(devices))
            metrics.devices_connected.labels(protocol).set(connected)
            metrics.never_reported.labels(protocol).set(newest.count(None))
            metrics.reading_age.labels(protocol).set(max(ages, default=0.0))
            metrics.adapter_up.labels(protocol).set(protocol not in watched.health.down)
        metrics.devices_stale.set(len(watched.live.stale()))
        self._leases()

    def _leases(self) -> None:
        """Devices by what ends a setpoint of theirs, and how many hold one."""
        metrics, watched = self._metrics, self._watched
        profiles = {
            profile.device_id: profile
            for adapter in watched.adapters.values() for profile in adapter.profiles()
        }  # fmt: skip
        bound = Counter(profile.lease for profile in profiles.values())
        held = Counter(profiles[device].lease for device in _left(watched) if device in profiles)
        for kind in LeaseKind:
            metrics.devices_by_lease.labels(kind.value).set(bound[kind])
            metrics.devices_holding.labels(kind.value).set(held[kind])
        refused = sum(bool(unattended(profile)) for profile in profiles.values())
        metrics.devices_refused.set(refused)

    def _age(self, device_id: str, now: datetime) -> float:
        newest = self._watched.live.newest(device_id)
        since = self._began if newest is None else newest.end
        return max(0.0, (now - since).total_seconds())

    def _dispatch(self) -> None:
        metrics, watched = self._metrics, self._watched
        metrics.orders_running.set(len(watched.running()))
        states = watched.setpoints()
        for state in OPEN_SETPOINTS:
            metrics.setpoints_open.labels(state).set(states.get(state, 0))
        leases = watched.leases()
        metrics.leases_held.set(len(leases))
        metrics.lease_seconds.set(min(leases.values(), default=float("nan")))
        follow = compliance(watched.instructions(), self._measured_kw)
        for protocol in watched.adapters:
            found = follow.get(protocol)
            metrics.instructed.labels(protocol).set(
                found.instructed_kw * _WATTS_PER_KW if found else 0.0
            )
            metrics.measured.labels(protocol).set(
                found.measured_kw * _WATTS_PER_KW if found else 0.0
            )
            metrics.compliance.labels(protocol).set(found.ratio if found else float("nan"))

    def _measured_kw(self, device_id: str) -> float | None:
        """Power of a device now; None when its newest reading is too old to say."""
        state = self._watched.live.device(device_id)
        return state.reference_kw if state is not None and state.connected else None

    def _service(self) -> None:
        metrics, watched = self._metrics, self._watched
        metrics.ready.set(not watched.health.waiting_for)
        heads = run_read(watched.engine, read_heads)
        metrics.journal_records.set(sum(sequence for sequence, _ in heads.values()))
        current = watched.roots_current_at() or self._began
        age = (watched.clock.now() - current).total_seconds()
        metrics.root_age.set(max(0.0, age))
        for writer, waiting in watched.queues.items():
            metrics.writer_queue.labels(writer).set(waiting())


def _left(watched: Watched) -> dict[str, float]:
    """Market seconds left of what each device holds, whoever ends it."""
    now = watched.clock.now()
    ends = run_read(watched.engine, lambda at: ends_in_force(at, now))
    return seconds_left(watched.leases(), ends, now, ends)


class _PerDevice(Collector):
    """Series with a label per device: for sites of some dozens of devices."""

    def __init__(self, watched: Watched, age: Callable[[str, datetime], float]) -> None:
        self._watched = watched
        self._age = age

    def describe(self) -> Iterator[Metric]:
        """Names without values: nothing is read at registration."""
        yield from self._families()

    def collect(self) -> Iterator[Metric]:
        """One sample per device."""
        ages, connected, leases = self._families()
        now, left = self._watched.clock.now(), _left(self._watched)
        for protocol, adapter in self._watched.adapters.items():
            for profile in adapter.profiles():
                labels = [profile.device_id, protocol]
                ages.add_metric(labels, self._age(profile.device_id, now))
                connected.add_metric(labels, float(adapter.connected(profile.device_id)))
                if profile.device_id in left:
                    leases.add_metric(labels, left[profile.device_id])
        yield from (ages, connected, leases)

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        def family(name: str, text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"flexway_device_{name}", text, labels=_DEVICE_LABELS)

        return (
            family("reading_age_seconds", "Age of a device's newest reading"),
            family("connected", "1 while a device is believed present"),
            family("lease_seconds_left", "Market seconds left on a device's lease"),
        )
