"""Devices that cannot run below a minimum, against trying every way to run them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_core.dispatch.sharing import Fairness
from marketplace_core.units import Direction
from tests.harness.columns import divided
from tests.harness.plain_sharing import SLACK, WATT, Device, Stretch, room_of, stretches_of

SETTINGS = settings(deadline=None, max_examples=150)
FAIRNESS = st.sampled_from(Fairness)
DIRECTION = st.sampled_from(Direction)
QUARTERS = st.integers(0, 32).map(lambda number: number / 4)
TARGET = st.one_of(QUARTERS, st.floats(0.0, 40.0))


@st.composite
def devices(draw: st.DrawFn, *, tiers: int = 0) -> Device:
    low, high = -draw(QUARTERS), draw(QUARTERS)
    return Device(
        low, high, draw(st.one_of(st.just(0.0), st.just(low), st.just(high), st.floats(low, high))),
        min_on_kw=draw(st.one_of(QUARTERS, st.floats(0.0, 5.0))),
        tier=draw(st.integers(0, tiers)),
        rank=draw(st.sampled_from([0.0, 1.0])),
    )  # fmt: skip


def able(device: Device, direction: Direction) -> list[Stretch]:
    room = room_of(device, direction.sign, 1.0)
    found = stretches_of(room, direction.sign * device.reference_kw, device.min_on_kw)
    return found if found[-1][1] >= WATT else [(0.0, 0.0)]


def most_possible(target: float, fleet: list[Device], direction: Direction) -> float:
    """The largest sum up to the target, of all ways to choose a stretch for each device."""
    best = 0.0
    for chosen in itertools.product(*(able(device, direction) for device in fleet)):
        if sum(low for low, _ in chosen) <= target + SLACK:
            best = max(best, min(target, sum(high for _, high in chosen)))
    return best


def gap_above(device: Device, direction: Direction, share: float) -> float | None:
    """Width of the gap that a device would have to be lifted over, None at its top."""
    stretches = able(device, direction)
    above = [low for low, _ in stretches if low > share + SLACK]
    return min(above) - share if above else None


@SETTINGS
@given(TARGET, st.lists(devices(tiers=1), max_size=6), DIRECTION, FAIRNESS)
def test_what_lacks_is_less_than_any_gap_that_is_left(
    target: float, fleet: list[Device], direction: Direction, fairness: Fairness
) -> None:
    found = divided(target, fleet, direction, 1.0, fairness)
    assert float(found.share_kw.sum()) <= most_possible(target, fleet, direction) + 1e-6
    if found.missing_kw <= 1e-6:
        return
    for device, share in zip(fleet, found.share_kw.tolist(), strict=True):
        gap = gap_above(device, direction, share)
        if gap is not None:
            assert found.missing_kw < gap + 1e-6
            assert gap <= device.min_on_kw + 1e-6
        else:
            assert share == pytest.approx(able(device, direction)[-1][1], abs=1e-6)


@SETTINGS
@given(TARGET, devices(), st.integers(1, 6), DIRECTION, FAIRNESS)
def test_alike_devices_with_one_gap_meet_every_target_that_they_can(
    target: float, device: Device, count: int, direction: Direction, fairness: Fairness
) -> None:
    fleet = [device] * count
    if len(able(device, direction)) > 2:
        return
    found = divided(target, fleet, direction, 1.0, fairness)
    best = most_possible(target, fleet, direction)
    assert float(found.share_kw.sum()) == pytest.approx(best, abs=1e-6)


@SETTINGS
@given(TARGET, st.lists(devices(), max_size=6), DIRECTION, FAIRNESS, st.data())
def test_the_place_of_a_device_does_not_decide_how_much_is_given(
    target: float,
    fleet: list[Device],
    direction: Direction,
    fairness: Fairness,
    data: st.DataObject,
) -> None:
    fleet = [
        each._replace(
            reference_kw=round(each.reference_kw * 4) / 4, min_on_kw=round(each.min_on_kw * 4) / 4,
            rank=float(place),
        )
        for place, each in enumerate(fleet)
    ]  # fmt: skip
    other = data.draw(st.permutations(fleet))
    target = round(target * 4) / 4
    one = divided(target, fleet, direction, 1.0, fairness).share_kw
    two = divided(target, other, direction, 1.0, fairness).share_kw
    assert one.sum() == pytest.approx(two.sum(), abs=1e-6)


def test_a_charger_pauses_or_keeps_to_its_minimum() -> None:
    chargers = [Device(-7.0, 0.0, -7.0, min_on_kw=1.4) for _ in range(10)]
    few = divided(28.0, chargers)
    assert few.share_kw.tolist() == pytest.approx([2.8] * 10)
    many = divided(63.0, chargers)  # 56 kW at their minimum, the rest only by pausing
    assert many.missing_kw == pytest.approx(0.0, abs=1e-9)
    assert sum(share == 7.0 for share in many.share_kw.tolist()) == 5
    assert max(share for share in many.share_kw.tolist() if share < 7.0) <= 5.6


def test_generators_run_at_their_minimum_or_stand_still() -> None:
    engines = [Device(0.0, 10.0, 0.0, min_on_kw=4.0) for _ in range(4)]
    assert divided(3.9, engines).missing_kw == pytest.approx(3.9)
    assert divided(13.0, engines).share_kw.tolist() == pytest.approx([6.5, 6.5, 0.0, 0.0])
    assert divided(20.0, engines).share_kw.tolist() == pytest.approx([5.0] * 4)
