"""What the allocation kernel promises, for whole fleets in both directions."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_core.dispatch.sharing import Fairness
from marketplace_core.units import Direction
from tests.harness.columns import divided
from tests.harness.plain_sharing import WATT, Device, divide, room_of, stretches_of

SETTINGS = settings(deadline=None, max_examples=120)
FAIRNESS = st.sampled_from(Fairness)
DIRECTION = st.sampled_from(Direction)
HOURS = st.sampled_from([0.25, 1.0, 4.0])
EIGHTHS = st.integers(0, 96).map(lambda number: number / 8)
TARGET = st.one_of(EIGHTHS, st.floats(0.0, 300.0))


@st.composite
def devices(draw: st.DrawFn, *, gaps: bool = True) -> Device:
    low, high = -draw(EIGHTHS), draw(EIGHTHS)
    reference = draw(st.one_of(st.just(0.0), st.just(low), st.floats(low, high)))
    capacity = draw(st.none() | st.floats(0.5, 40.0))
    most = draw(st.none() | st.floats(0.0, 20.0))
    return Device(
        min_kw=low, max_kw=high, reference_kw=reference,
        limit=draw(st.booleans()),
        capacity_kwh=capacity,
        soc_kwh=None if capacity is None else capacity * draw(st.floats(0.0, 1.0)),
        least_kwh=None if most is None else most * draw(st.floats(0.0, 1.0)),
        most_kwh=most,
        ramp_kw_per_s=draw(st.none() | st.floats(0.001, 1.0)),
        min_on_kw=draw(st.one_of(st.just(0.0), st.just(1.375), EIGHTHS)) if gaps else 0.0,
        tier=draw(st.integers(0, 2)),
        usable=draw(st.sampled_from([True, True, True, False])),
        weight=draw(st.sampled_from([0.5, 1.0, 1.0, 3.0])),
        rank=draw(st.sampled_from([0.0, 1.0, 2.0, 7.5])),
    )  # fmt: skip


def fleets(*, gaps: bool = True, most: int = 12) -> st.SearchStrategy[list[Device]]:
    return st.lists(devices(gaps=gaps), max_size=most)


def able(device: Device, direction: Direction, hours: float) -> list[tuple[float, float]]:
    """The stretches of a device, as plain Python has them."""
    room = room_of(device, direction.sign, hours)
    return stretches_of(room, direction.sign * device.reference_kw, device.min_on_kw)


@SETTINGS
@given(TARGET, fleets(), DIRECTION, HOURS, FAIRNESS)
def test_no_share_is_over_a_bound_and_every_device_can_hold_its_share(
    target: float, fleet: list[Device], direction: Direction, hours: float, fairness: Fairness
) -> None:
    shares = divided(target, fleet, direction, hours, fairness).share_kw
    for device, share in zip(fleet, shares.tolist(), strict=True):
        assert 0 <= share <= room_of(device, direction.sign, hours)
        stretches = able(device, direction, hours)
        assert any(low - 1e-9 <= share <= high + 1e-9 for low, high in stretches)
        power = device.reference_kw + direction.sign * share
        if share > 0:
            assert device.min_kw - 1e-9 <= power <= device.max_kw + 1e-9


@SETTINGS
@given(TARGET, fleets(), DIRECTION, HOURS, FAIRNESS)
def test_shares_and_what_is_missing_sum_to_the_target(
    target: float, fleet: list[Device], direction: Direction, hours: float, fairness: Fairness
) -> None:
    found = divided(target, fleet, direction, hours, fairness)
    total = float(found.share_kw.sum())
    assert total + found.missing_kw == pytest.approx(target, abs=1e-6)
    assert total <= target + 1e-6
    assert found.missing_kw >= 0


@SETTINGS
@given(TARGET, fleets(gaps=False), DIRECTION, HOURS, FAIRNESS)
def test_without_minimum_power_nothing_is_missing_while_anybody_has_room(
    target: float, fleet: list[Device], direction: Direction, hours: float, fairness: Fairness
) -> None:
    found = divided(target, fleet, direction, hours, fairness)
    if found.missing_kw > 1e-6:
        assert found.share_kw.tolist() == pytest.approx(
            [room if room >= WATT else 0.0 for room in found.room_kw.tolist()]
        )


@SETTINGS
@given(TARGET, TARGET, fleets(), DIRECTION, HOURS, FAIRNESS)
def test_a_larger_target_never_ends_with_less(  # noqa: PLR0917 - what hypothesis draws
    one: float,
    other: float,
    fleet: list[Device],
    direction: Direction,
    hours: float,
    fairness: Fairness,
) -> None:
    low, high = sorted((one, other))
    less = divided(low, fleet, direction, hours, fairness).share_kw.sum()
    more = divided(high, fleet, direction, hours, fairness).share_kw.sum()
    assert less <= more + 1e-6


@SETTINGS
@given(TARGET, TARGET, fleets(gaps=False), DIRECTION, FAIRNESS)
def test_without_minimum_power_no_share_falls_when_the_target_rises(
    one: float, other: float, fleet: list[Device], direction: Direction, fairness: Fairness
) -> None:
    low, high = sorted((one, other))
    less = divided(low, fleet, direction, 1.0, fairness).share_kw
    more = divided(high, fleet, direction, 1.0, fairness).share_kw
    assert (less <= more + 1e-8).all()


@SETTINGS
@given(TARGET, fleets(), DIRECTION, FAIRNESS, st.sampled_from([2.0, 8.0, 64.0]))
def test_a_fleet_of_larger_devices_shares_a_larger_target_alike(
    target: float, fleet: list[Device], direction: Direction, fairness: Fairness, factor: float
) -> None:
    def sized(name: str, value: float | None) -> float | None:
        return value * factor if name.endswith(("kw", "kwh", "kw_per_s")) and value else value

    larger = [
        Device(**{name: sized(name, value) for name, value in each._asdict().items()})
        for each in fleet
    ]
    room = divided(target, fleet, direction, 1.0, fairness).room_kw
    if ((room > 0) & (room < 10 * WATT)).any():
        return  # a watt is a watt, however large the fleet
    once = divided(target, fleet, direction, 1.0, fairness).share_kw
    scaled = divided(target * factor, larger, direction, 1.0, fairness).share_kw
    assert (scaled / factor).tolist() == pytest.approx(once.tolist(), abs=1e-6)


@SETTINGS
@given(TARGET, fleets(gaps=False), DIRECTION, FAIRNESS, st.randoms(use_true_random=False))
def test_the_order_of_devices_changes_nothing(
    target: float,
    fleet: list[Device],
    direction: Direction,
    fairness: Fairness,
    chance: random.Random,
) -> None:
    fleet = [each._replace(rank=float(place)) for place, each in enumerate(fleet)]
    places = list(range(len(fleet)))
    chance.shuffle(places)
    before = divided(target, fleet, direction, 1.0, fairness).share_kw
    after = divided(target, [fleet[place] for place in places], direction, 1.0, fairness)
    assert after.share_kw.tolist() == pytest.approx(before[places].tolist(), abs=1e-8)


@SETTINGS
@given(TARGET, fleets(), DIRECTION, HOURS, FAIRNESS)
def test_the_kernel_says_what_plain_python_says(
    target: float, fleet: list[Device], direction: Direction, hours: float, fairness: Fairness
) -> None:
    ours = divided(target, fleet, direction, hours, fairness).share_kw.tolist()
    plain = divide(target, fleet, direction.sign, hours, fairness.value)
    assert ours == pytest.approx(plain, abs=1e-6)


@SETTINGS
@given(st.floats(0.5, 100.0), fleets(gaps=False), DIRECTION)
def test_equal_gives_all_the_same_but_who_has_less_gives_all_of_it(
    target: float, fleet: list[Device], direction: Direction
) -> None:
    fleet = [each._replace(tier=0) for each in fleet]
    found = divided(target, fleet, direction, 1.0, Fairness.EQUAL)
    levels = [
        (share / device.weight, share >= room - 1e-9)
        for share, room, device in zip(
            found.share_kw.tolist(), found.room_kw.tolist(), fleet, strict=True
        )
        if room >= WATT
    ]
    level = max((at for at, _ in levels), default=0.0)
    assert all(full or at == pytest.approx(level, abs=1e-8) for at, full in levels)


@SETTINGS
@given(st.floats(0.5, 100.0), fleets(gaps=False), DIRECTION)
def test_priority_uses_up_every_lower_rank_and_shares_alike_within_one(
    target: float, fleet: list[Device], direction: Direction
) -> None:
    fleet = [each._replace(tier=0) for each in fleet]
    found = divided(target, fleet, direction, 1.0, Fairness.PRIORITY)
    parts: dict[float, list[float]] = {}
    for device, share, room in zip(
        fleet, found.share_kw.tolist(), found.room_kw.tolist(), strict=True
    ):
        if room >= WATT:
            parts.setdefault(device.rank, []).append(share / room)
    ranks = [parts[rank] for rank in sorted(parts)]
    assert all(max(each) - min(each) <= 1e-8 for each in ranks)
    for lower, upper in itertools.pairwise(ranks):
        assert max(upper) <= 1e-8 or min(lower) >= 1 - 1e-8


@SETTINGS
@given(st.lists(st.floats(1.0, 7.0), min_size=2, max_size=12), st.floats(0.1, 0.9))
def test_rotate_calls_the_least_used_and_only_one_of_them_in_part(
    rooms: list[float], part: float
) -> None:
    target, used = part * sum(rooms), [0.0] * len(rooms)
    for _ in range(5):
        shares = rotated(target, rooms, used)
        called = [use for use, share in zip(used, shares, strict=True) if share > 1e-9]
        spared = [use for use, share in zip(used, shares, strict=True) if share <= 1e-9]
        assert max(called) <= min(spared, default=max(called))
        partial = [s for s, room in zip(shares, rooms, strict=True) if 1e-9 < s < room - 1e-9]
        assert len(partial) <= 1
        used = [use + share for use, share in zip(used, shares, strict=True)]


@SETTINGS
@given(st.integers(2, 12), st.floats(0.1, 0.9))
def test_rotate_calls_everybody_in_turn(count: int, part: float) -> None:
    rooms, used = [4.0] * count, [0.0] * count
    for _ in range(20):
        shares = rotated(part * 4.0 * count, rooms, used)
        used = [use + share for use, share in zip(used, shares, strict=True)]
        assert max(used) - min(used) <= 4.0 + 1e-6


def rotated(target: float, rooms: list[float], used: list[float]) -> list[float]:
    fleet = [Device(0.0, room, 0.0, rank=use) for room, use in zip(rooms, used, strict=True)]
    return divided(target, fleet, fairness=Fairness.ROTATE).share_kw.tolist()
