"""Commanded against measured: what is a finding, what is excused, what others make up for."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_core.dispatch.bounds import DeviceState
from marketplace_core.dispatch.order import Allocation, Call, Shortfall
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.dispatch.tracking import (
    TRACKING,
    Progress,
    Tracked,
    missing,
    shortfalls,
    track,
)
from marketplace_core.intervals import Interval, instant
from marketplace_core.units import Direction, Kw, Kwh
from marketplace_core.verification.reading import Reading

START = instant("2017-07-21T00:00:00Z")
MINUTE = timedelta(minutes=1)
UP, DOWN = Direction.UP, Direction.DOWN


def profile(name: str = "bat", **changes: object) -> DeviceProfile:
    made = DeviceProfile(
        device_id=name, protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0),
        lease=LeaseKind.REVERT_TIMER, lease_s=900.0, capacity_kwh=Kwh(6.0),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def tracked(
    share: float = 4.0, reference: float = 0.0, direction: Direction = UP, **changes: object
) -> Tracked:
    allocation = Allocation(
        device_id="bat", contract_id="ctr_1", share_kw=Kw(share), reference_kw=Kw(reference),
        power_kw=Kw(reference + direction.sign * share),
    )  # fmt: skip
    return Tracked(
        profile=profile(**changes), direction=direction, allocation=allocation, since=START,
        until=START + timedelta(hours=2),
    )  # fmt: skip


def reading(minute: int, kw: float, **changes: object) -> Reading:
    made = Reading(
        series="bat", start=START + minute * MINUTE, seconds=60.0, power_kw=Kw(kw), soc_kwh=3.0
    )
    return msgspec.structs.replace(made, **changes)


def after(device: Tracked, *powers: float) -> Tracked:
    for minute, kw in enumerate(powers):
        device = track(device, reading(minute, kw))
    return device


def test_one_short_reading_is_no_finding_and_two_are() -> None:
    assert after(tracked(), 0.0).progress is Progress.SHORT
    assert after(tracked(), 0.0, 0.0).progress is Progress.IGNORES
    assert after(tracked(), 2.0, 2.0).progress is Progress.CLAMPS


def test_a_device_that_comes_back_is_clear_at_once() -> None:
    device = after(tracked(), 0.0, 0.0, 4.0)
    assert device.progress is Progress.FOLLOWS
    assert after(tracked(), 0.0, 4.0, 0.0).progress is Progress.SHORT


def test_the_finding_says_when_it_could_first_be_seen() -> None:
    assert after(tracked(), 4.0, 0.0, 0.0).first_short == START + 2 * MINUTE


def test_readings_that_begin_before_the_setpoint_or_end_after_it_say_nothing() -> None:
    device = tracked()
    assert track(device, reading(-1, 0.0)) is device
    assert track(device, reading(120, 0.0)) is device


def test_more_than_was_asked_is_never_short() -> None:
    assert after(tracked(), 5.0, 5.0).progress is Progress.FOLLOWS
    limit = tracked(3.0, -6.0, control=ControlKind.LIMIT)
    assert after(limit, 0.0, 0.0).progress is Progress.FOLLOWS  # it draws even less


def test_down_is_the_mirror_of_up() -> None:
    device = tracked(4.0, 0.0, DOWN)
    assert after(device, -4.0, -4.0).progress is Progress.FOLLOWS
    assert after(device, 0.0, 0.0).progress is Progress.IGNORES
    assert after(device, -2.0, -2.0).delivered_kw == 2.0


@pytest.mark.parametrize(
    ("direction", "stored", "excused"), [(UP, 0.1, True), (UP, 1.0, False), (DOWN, 5.9, True),
                                         (DOWN, 5.0, False)],
)  # fmt: skip
def test_an_empty_or_full_battery_is_excused(
    direction: Direction, stored: float, *, excused: bool
) -> None:
    device = tracked(4.0, 0.0, direction)
    for minute in range(2):
        device = track(device, reading(minute, 0.0, soc_kwh=stored))
    assert (device.progress is Progress.EXCUSED) is excused


def test_a_car_that_left_or_is_satisfied_is_excused() -> None:
    for change in ({"available": False}, {"wanted_kwh": 0.0}):
        device = tracked(4.0, 0.0, DOWN, capacity_kwh=None)
        for minute in range(3):
            device = track(device, reading(minute, 0.0, soc_kwh=None, **change))
        assert device.progress is Progress.EXCUSED


def test_a_fleet_that_its_owner_drives_is_not_said_to_clamp() -> None:
    assert after(tracked(aggregate=True), 2.0, 2.0).progress is Progress.EXCUSED
    assert after(tracked(aggregate=True), 0.0, 0.0).progress is Progress.IGNORES


@given(st.floats(0.3, 5.0), st.lists(st.floats(-5.0, 5.0), max_size=6))
def test_a_device_within_tolerance_is_never_found(share: float, powers: list[float]) -> None:
    device = after(tracked(share), *powers, share, share)
    assert device.progress is Progress.FOLLOWS
    tolerance = max(TRACKING.tolerance_kw, TRACKING.tolerance_share * share)
    good = [max(kw, share - tolerance * 0.99) for kw in powers]
    assert after(tracked(share), *good).progress in {Progress.FOLLOWS, Progress.UNKNOWN}


def test_what_others_make_up_for_is_what_is_really_lacking() -> None:
    devices = [after(tracked(), 0.0, 0.0), after(tracked(), 2.0, 2.0), after(tracked(), 4.0, 4.0)]
    short = shortfalls(devices)
    assert [each.delivered_kw for each in short] == [0.0, 2.0]
    assert [each.reason for each in short] == ["ignores", "clamps"]


def test_a_contract_misses_what_its_own_devices_cannot_make_up() -> None:
    calls = [Call(contract_id="ctr_1", seller="org_s", kw=Kw(8.0), price=Decimal(1))]
    healthy = DeviceState(profile=profile("b2"), reference_kw=Kw(0.0), soc_kwh=6.0)
    broken = DeviceState(profile=profile("b1"), reference_kw=Kw(0.0), soc_kwh=6.0)
    short = [Shortfall(device_id="b1", contract_id="ctr_1", delivered_kw=Kw(1.0), reason="clamps")]
    span = Interval(START, START + timedelta(hours=1))
    found = missing(calls, short, {"ctr_1": [broken, healthy]}, direction=UP, span=span)
    assert found == (("ctr_1", pytest.approx(2.0)),)  # 8 - 1 - 5
    small = [msgspec.structs.replace(calls[0], kw=Kw(6.0))]
    assert missing(small, short, {"ctr_1": [broken, healthy]}, direction=UP, span=span) == ()
