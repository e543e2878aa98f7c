"""What metrics mean: readings of their spans, commands in declared types, verdicts."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mqtt.sparkplug import Declared, Sample
from adapters.mqtt.sparkplug_binding import (
    Meaning,
    Reported,
    SparkplugDevice,
    Wanted,
    check,
    command,
    tolerance,
)
from adapters.mqtt.sparkplug_control import Verdict, answered, before, in_force, verdict
from adapters.mqtt.sparkplug_payload import DataType, Metric, Raw
from adapters.mqtt.sparkplug_readings import PowerReadings, Spans
from marketplace_core.dispatch.profile import LeaseKind
from marketplace_core.errors import ConfigError
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness.clocks import IdentityTime
from tests.harness.sparkplug import binding

T0 = 1_500_000_000_000
DECLARED = {
    "Control/Setpoint": Declared("Control/Setpoint", 21, DataType.INT32),
    "Control/Enable": Declared("Control/Enable", 22, DataType.BOOLEAN),
    "Control/Lease": Declared("Control/Lease", None, DataType.UINT32),
    "Control/Heartbeat": Declared("Control/Heartbeat", 24, DataType.UINT8),
}


def power(at_s: float, watts: float, *, historical: bool = False) -> Sample:
    return Sample("Inverter/Power", watts, T0 + round(at_s * 1000), historical)


class Meter:
    def __init__(self, interval_s: float = 60.0) -> None:
        device = binding("bess-1")
        self.reported = Reported(device)
        self._readings = PowerReadings(device, IdentityTime(), interval_s)

    def take(self, *samples: Sample) -> tuple[list[Reading], list[str]]:
        faults = self.reported.take(samples)
        readings, more = self._readings.take(samples, self.reported)
        return readings, faults + more

    def born(self, *samples: Sample) -> None:
        self.reported.take(samples)
        self._readings.born(samples, self.reported)

    def spans(self, *samples: Sample) -> list[tuple[float, float, float]]:
        return [
            (one.start.timestamp() - T0 / 1000, one.seconds, one.power_kw)
            for one in self.take(*samples)[0]
        ]


def test_a_sample_stands_for_the_time_since_the_one_before() -> None:
    meter = Meter()
    assert meter.spans(power(0, 0)) == []  # nothing is known of the time before it
    assert meter.spans(power(60, 2000)) == [(0, 60, -2.0)]
    assert meter.spans(power(85, -500)) == [(60, 25, 0.5)]
    assert meter.spans(power(1000, 100)) == [(940, 60, -0.1)]  # what is longer is a gap
    assert meter.spans(power(1000, 100)) == []


def test_a_birth_claims_no_time() -> None:
    meter = Meter()
    meter.born(power(0, 5))
    assert meter.spans(power(60, 2000)) == [(0, 60, -2.0)]
    meter.born(power(100, 5))  # what was measured before it may come after it
    assert meter.spans(power(90, 1000, historical=True)) == [(60, 30, -1.0)]
    assert meter.spans(power(120, 3000)) == [(90, 30, -3.0)]


def test_history_fills_the_hole_that_it_is_of() -> None:
    meter = Meter()
    meter.take(power(0, 0))
    assert meter.spans(power(300, 5)) == [(240, 60, -0.005)]
    late = [power(at, 7000, historical=True) for at in (180, 60, 120, 240, 270)]
    assert [one[:2] for one in meter.spans(*late)] == [(0, 60), (60, 60), (120, 60), (180, 60)]
    assert meter.reported.values["power"] == -0.005  # history says nothing of now


@given(st.lists(st.integers(0, 5_000), max_size=80), st.floats(1.0, 500.0))
def test_no_time_is_ever_counted_twice(instants: list[int], interval_ms: float) -> None:
    """Whatever order samples come in, and however often."""
    spans = Spans(interval_ms)
    claimed = sorted(span for at in instants * 2 if (span := spans.claim(at)) is not None)
    assert all(start < end for start, end in claimed)
    for (_, end), (start, _) in itertools.pairwise(claimed):
        assert end <= start


def test_a_reading_carries_what_was_said_beside_its_power() -> None:
    meter = Meter()
    meter.take(power(0, 0))
    (reading,), _ = meter.take(
        power(60, -1000), Sample("Battery/Stored", 4.5, T0 + 60_000, historical=False),
        Sample("Battery/Ready", False, T0 + 60_000, historical=False),
    )  # fmt: skip
    assert (reading.power_kw, reading.soc_kwh, reading.available) == (1.0, 4.5, False)
    assert (reading.series, reading.sequence) == ("bess-1", -1)
    old = [
        power(30, -3000, historical=True),
        Sample("Battery/Stored", 9.0, T0 + 30_000, historical=True),
    ]
    assert meter.take(*old)[0] == []  # its time is covered
    assert meter.reported.values["soc"] == 4.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, "much"])
def test_what_no_meter_can_mean_is_a_fault_and_no_reading(value: object) -> None:
    meter = Meter()
    meter.take(power(0, 0))
    readings, faults = meter.take(power(60, value), power(120, 1000))
    assert [one.power_kw for one in readings] == [-1.0]
    assert "Inverter/Power" in faults[0]


def test_a_negative_charge_is_a_fault_live_or_of_old() -> None:
    meter = Meter()
    for historical in (False, True):
        _, faults = meter.take(Sample("Battery/Stored", -1.0, T0, historical))
        assert "Battery/Stored" in faults[0]
    assert "soc" not in meter.reported.values


def test_a_null_is_neither_a_reading_nor_a_fault() -> None:
    meter = Meter()
    meter.take(power(0, 0))
    assert meter.take(Sample("Inverter/Power", None, T0 + 60_000, historical=False)) == ([], [])


def test_a_command_speaks_in_declared_types_and_puts_safety_first() -> None:
    wanted = Wanted(power_kw=-2.0004, enable=True, lease_s=600.0, beat=5)
    made = command(wanted, binding("b"), DECLARED)
    assert made.metrics == (
        Metric(name="Control/Lease", value=Raw(10, 600)),
        Metric(alias=24, value=Raw(10, 5)),
        Metric(alias=21, value=Raw(10, 2000)),
        Metric(alias=22, value=Raw(14, True)),
    )
    assert made.expected == {"heartbeat": 5.0, "setpoint": -2.0, "enable": 1.0}


def test_a_lease_is_never_written_as_none() -> None:
    made = command(Wanted(lease_s=0.2), binding("b"), DECLARED)
    assert made.metrics == (Metric(name="Control/Lease", value=Raw(10, 1)),)


@pytest.mark.parametrize(("asked_kw", "whole"), [(-7.0, 6), (-5.4, 5), (0.0, 0), (-0.6, 1)])
def test_rounding_never_leads_out_of_the_bounds(asked_kw: float, whole: int) -> None:
    metrics = {"setpoint": Meaning(metric="Control/Setpoint", scale=-1.0)}
    profile = msgspec.structs.replace(binding("b").profile, min_kw=Kw(-6.9), max_kw=Kw(0.0))
    device = SparkplugDevice(
        device_id="b", organisation="o", profile=profile, group="g", edge_node="n", metrics=metrics
    )
    made = command(Wanted(power_kw=max(asked_kw, -6.9)), device, DECLARED)
    assert made.metrics == (Metric(alias=21, value=Raw(10, whole)),)
    assert made.expected == {"setpoint": -float(whole)}


def test_a_command_that_the_birth_did_not_declare_is_refused() -> None:
    with pytest.raises(ValueError, match="Control/Setpoint"):
        command(Wanted(power_kw=1.0), binding("b"), {})
    narrow = {"Control/Setpoint": Declared("Control/Setpoint", 1, DataType.INT8)}
    with pytest.raises(ValueError, match="outside of INT8"):
        command(Wanted(power_kw=-2.0), binding("b"), narrow)
    text = {"Control/Setpoint": Declared("Control/Setpoint", 1, DataType.STRING)}
    with pytest.raises(ValueError, match="holds no number"):
        command(Wanted(power_kw=-2.0), binding("b"), text)


def test_whole_watts_read_back_are_what_was_written() -> None:
    assert tolerance(binding("b"), DataType.INT32) == pytest.approx(0.001)
    coarse = {"setpoint": Meaning(metric="x", scale=1.0)}
    device = SparkplugDevice(
        device_id="b", organisation="o", profile=binding("b").profile, group="g", edge_node="n",
        metrics=coarse,
    )  # fmt: skip
    assert tolerance(device, DataType.INT32) == pytest.approx(0.51)
    assert tolerance(device, DataType.DOUBLE) == pytest.approx(0.001)


EXPECTED = {"setpoint": -2.0, "enable": 1.0}


def told(reported: Reported, setpoint_w: float, *, enable: bool) -> None:
    reported.take([
        Sample("Control/Setpoint", setpoint_w, T0, historical=False),
        Sample("Control/Enable", enable, T0, historical=False),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("setpoint_w", "enable", "verdict_is"),
    [
        (2000, 1, Verdict.MATCHES), (2000, 0, Verdict.OPEN), (0, 1, Verdict.OPEN),
        (1500, 1, Verdict.CONTRADICTED),
    ],
)  # fmt: skip
def test_a_report_confirms_contradicts_or_leaves_open(
    setpoint_w: float, enable: int, verdict_is: Verdict
) -> None:
    reported = Reported(binding("b"))
    told(reported, 0, enable=False)
    was = before(reported)
    assert not answered(EXPECTED, was, reported)
    told(reported, setpoint_w, enable=bool(enable))
    assert verdict(EXPECTED, was, reported, tolerance_kw=0.001)[0] is verdict_is
    assert answered(EXPECTED, was, reported)


def test_what_stands_already_needs_no_report() -> None:
    reported = Reported(binding("b"))
    told(reported, 2000, enable=True)
    was = before(reported)
    assert verdict(EXPECTED, was, reported, tolerance_kw=0.001)[0] is Verdict.MATCHES
    beat = {**EXPECTED, "heartbeat": 4.0}  # but for a heartbeat, which is new each time
    assert verdict(beat, was, reported, tolerance_kw=0.001)[0] is Verdict.OPEN


def test_what_is_in_force_is_what_the_device_says() -> None:
    reported = Reported(binding("b"))
    assert in_force(reported, fallback_kw=None, tolerance_kw=0.1) == (False, None)
    told(reported, 2000, enable=False)
    assert in_force(reported, fallback_kw=None, tolerance_kw=0.1) == (False, -2.0)
    switchless = Reported(binding("b", without=["enable"]))
    switchless.take([Sample("Control/Setpoint", 2000, T0, historical=False)])
    assert in_force(switchless, fallback_kw=-2.0, tolerance_kw=0.1) == (False, -2.0)
    assert in_force(switchless, fallback_kw=0.0, tolerance_kw=0.1) == (True, -2.0)


def test_a_lease_that_nothing_tells_the_device_of_is_refused() -> None:
    with pytest.raises(ConfigError, match="lease or heartbeat"):
        check(binding("b", without=["lease", "heartbeat"]))
    with pytest.raises(ConfigError, match="nothing ends a setpoint"):
        check(binding("b", without=["enable"]))
    check(binding("b", without=["enable", "lease"], fallback_kw=Kw(0.0)))
    watched = binding("b", without=["lease", "heartbeat"])
    assert watched.profile.lease is LeaseKind.TIME_TO_LIVE
    check(binding("b", without=["setpoint", "enable", "lease", "heartbeat"]))
