"""What a Sparkplug device's metrics mean to us: readings out of samples, metrics out of setpoints.

Pure. A metric is named and scaled by configuration; what it is made of (its type, its alias)
is what its birth declared.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

import msgspec

from adapters.mqtt.exchange import MqttDevice
from adapters.mqtt.sparkplug import NODE, Declared, Sample
from adapters.mqtt.sparkplug_payload import FLOATS, INTEGERS, DataType, Metric, Raw, Value, as_raw
from adapters.mqtt.sparkplug_topic import check_levels
from marketplace_core.dispatch.profile import LeaseKind
from marketplace_core.errors import ConfigError

Role = Literal[
    "power", "soc", "energy_import", "energy_export", "available",
    "setpoint", "enable", "lease", "heartbeat",
]  # fmt: skip
"""What a metric is to us. Power and setpoint are in kW (injection positive), energies in kWh,
a lease in seconds, each once its value is multiplied with its scale."""
_BEAT_LIMIT: Final = 128
"""A heartbeat counts from 0 up to this and starts again: it fits every integer type."""
_ROUNDING_KW: Final = 1e-6
_LARGEST: Final = 1e9
"""No kilowatts, kilowatt-hours or seconds above it are believed."""


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of a device."""

    metric: str
    """Its name, as the birth declares it."""
    scale: float = 1.0
    """A value times this is in our unit and sign; negative where the device counts the other
    way round."""


class SparkplugDevice(MqttDevice, frozen=True, kw_only=True):
    """One device of an edge node, or the edge node itself."""

    group: str
    edge_node: str
    sparkplug_device: str = NODE
    """Empty when the metrics are the edge node's own."""
    metrics: Mapping[Role, Meaning]


def check(device: SparkplugDevice) -> None:
    """Raise ConfigError for a binding that cannot work or could leave a device driven."""
    names = (device.group, device.edge_node, device.sparkplug_device or "x")
    try:
        check_levels(*names)
    except ValueError as error:
        raise ConfigError(f"{device.device_id}: {error}") from error
    lease, metrics = device.profile.lease, device.metrics
    if "setpoint" not in metrics:
        return
    if lease in {LeaseKind.REVERT_TIMER, LeaseKind.TIME_TO_LIVE} and not (
        metrics.keys() & {"lease", "heartbeat"}
    ):
        raise ConfigError(
            f"{device.device_id}: lease = {lease.value!r} needs a lease or heartbeat metric "
            "that the device counts down; without one only lease = 'watchdog' is true"
        )
    if "enable" not in metrics and device.profile.fallback_kw is None:
        raise ConfigError(
            f"{device.device_id}: nothing ends a setpoint: name its enable metric, or give "
            "fallback_kw, which is written then"
        )


def number(value: Value | None, meaning: Meaning, role: Role) -> float | None:
    """A metric's value in our unit; None for a null. Raises ValueError for what cannot be meant."""
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise ValueError(f"{meaning.metric} is no number")  # noqa: TRY004 - the device's fault
    scaled = value * meaning.scale
    if not math.isfinite(scaled) or abs(scaled) > _LARGEST or (role == "soc" and scaled < 0.0):
        raise ValueError(f"{meaning.metric} = {value!r} cannot be meant")
    return scaled


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a command asks of a device, by role, in our units."""

    power_kw: float | None = None
    enable: bool | None = None
    lease_s: float | None = None
    beat: int | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command as metrics, and the values that the device has to report back."""

    metrics: tuple[Metric, ...]
    expected: Mapping[Role, float]


def command(wanted: Wanted, device: SparkplugDevice, declared: Mapping[str, Declared]) -> Command:
    """The metrics of a DCMD: safety first, then the value, then what puts it in force.

    By alias where the birth gave one (section 6.4.6), and in the types that it declared.
    Raises: ValueError for a metric that was not declared or cannot hold the value.
    """
    asked: list[tuple[Role, float | None]] = [
        ("lease", wanted.lease_s), ("heartbeat", wanted.beat), ("setpoint", wanted.power_kw),
        ("enable", wanted.enable),
    ]  # fmt: skip
    metrics: list[Metric] = []
    expected: dict[Role, float] = {}
    for role, value in asked:
        meaning = device.metrics.get(role)
        if value is None or meaning is None:
            continue
        known = declared.get(meaning.metric)
        if known is None:
            raise ValueError(f"its birth declared no {meaning.metric}")
        on_wire = _on_wire(value, meaning, known.datatype)
        if role == "lease" and not on_wire:
            on_wire = 1  # to some firmware a lease of 0 is one without end
        if role == "setpoint" and isinstance(on_wire, int):
            on_wire = _inside(on_wire, meaning, device)
        metrics.append(_named(known, as_raw(on_wire, known.datatype)))
        if role != "lease":
            expected[role] = float(on_wire) * meaning.scale
    return Command(metrics=tuple(metrics), expected=expected)


def _inside(whole: int, meaning: Meaning, device: SparkplugDevice) -> int:
    """A rounded setpoint, one step back where rounding led out of the device's bounds."""
    low, high = device.profile.min_kw, device.profile.max_kw
    steps = [whole, whole - 1, whole + 1]
    for one in steps:
        if low - _ROUNDING_KW <= one * meaning.scale <= high + _ROUNDING_KW:
            return one
    raise ValueError(f"no whole {meaning.metric} lies within {low:g} .. {high:g} kW")


def tolerance(device: SparkplugDevice, datatype: DataType) -> float:
    """Kilowatts that a setpoint may read back aside and still be the one that was written."""
    step = abs(device.metrics["setpoint"].scale) if datatype in INTEGERS else 0.0
    return max(0.51 * step, 1e-3)


def beat_after(beat: int) -> int:
    """The heartbeat that follows one."""
    return (beat + 1) % _BEAT_LIMIT


def _named(known: Declared, raw: Raw) -> Metric:
    if known.alias is not None:
        return Metric(alias=known.alias, value=raw)
    return Metric(name=known.name, value=raw)


def _on_wire(value: float, meaning: Meaning, datatype: DataType) -> Value:
    scaled = value / meaning.scale
    if datatype is DataType.BOOLEAN:
        return bool(value)
    if datatype in FLOATS:
        return scaled
    if datatype in INTEGERS:
        return round(scaled)
    raise ValueError(f"{meaning.metric} is a {datatype.name}, which holds no number")


class Reported:
    """The newest value of each role of a device, and how often it was reported."""

    def __init__(self, device: SparkplugDevice) -> None:
        self._roles: dict[str, list[tuple[Role, Meaning]]] = {}
        for role, meaning in device.metrics.items():
            self._roles.setdefault(meaning.metric, []).append((role, meaning))
        self.values: dict[Role, float | None] = {}
        self.reports: dict[Role, int] = {}

    def take(self, samples: Sequence[Sample], *, born: bool = False) -> list[str]:
        """Note what is live; return what could not be understood.

        What a birth says is so, and answers nobody: it is not counted as a report.
        """
        faults: list[str] = []
        for sample in samples:
            if sample.historical:
                continue
            for role, meaning in self._roles.get(sample.name, ()):
                try:
                    self.values[role] = number(sample.value, meaning, role)
                except ValueError as error:
                    faults.append(str(error))
                else:
                    self.reports[role] = self.reports.get(role, 0) + (not born)
        return faults

    def forget(self) -> None:
        """A new birth says everything anew."""
        self.values.clear()

    @property
    def names(self) -> Collection[str]:
        """Metrics that mean something to us."""
        return self._roles.keys()

    def roles_of(self, name: str) -> Sequence[tuple[Role, Meaning]]:
        """What a metric is to us; nothing for most."""
        return self._roles.get(name, ())
