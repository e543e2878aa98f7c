"""What sharing a target over devices conserves, whatever the fleet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_core.dispatch.bounds import DeviceState, allocate, headroom, reachable
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.units import Direction, Kw, Kwh

FloatArray = npt.NDArray[np.float64]
KW = st.floats(0.0, 1e4, allow_nan=False, allow_subnormal=True)
TARGET = st.floats(0.0, 1e6, allow_nan=False)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[FloatArray, FloatArray]:
    """Headroom and minima of the same length."""
    room = np.array(draw(st.lists(KW, max_size=40)), dtype=np.float64)
    parts = draw(st.lists(st.floats(0.0, 1.0), min_size=len(room), max_size=len(room)))
    return room, np.minimum(room * np.array(parts, dtype=np.float64), room)


@settings(deadline=None, max_examples=300)
@given(TARGET, fleets())
def test_shares_sum_to_the_target_or_to_all_there_is(
    target: float, fleet: tuple[FloatArray, FloatArray]
) -> None:
    room, least = fleet
    wanted = min(target, float(room.sum()))
    for shares in (allocate(target, room), allocate(target, room, least)):
        assert abs(float(shares.sum()) - wanted) <= 1e-9 * max(1.0, wanted)


@settings(deadline=None, max_examples=300)
@given(TARGET, fleets())
def test_no_share_is_negative_or_over_its_bound(
    target: float, fleet: tuple[FloatArray, FloatArray]
) -> None:
    room, least = fleet
    for shares in (allocate(target, room), allocate(target, room, least)):
        assert (shares >= 0).all()
        assert (shares <= room).all()


@settings(deadline=None, max_examples=300)
@given(TARGET, TARGET, fleets())
def test_no_share_falls_when_the_target_rises(
    one: float, other: float, fleet: tuple[FloatArray, FloatArray]
) -> None:
    room, least = fleet
    low, high = sorted((one, other))
    slack = 1e-9
    assert (allocate(low, room) <= allocate(high, room) + slack).all()
    assert (allocate(low, room, least) <= allocate(high, room, least) + slack).all()


@settings(deadline=None, max_examples=300)
@given(TARGET, fleets())
def test_minima_are_served_whenever_the_target_allows(
    target: float, fleet: tuple[FloatArray, FloatArray]
) -> None:
    room, least = fleet
    if target >= least.sum():
        assert (allocate(target, room, least) >= least * (1 - 1e-12)).all()


@settings(deadline=None, max_examples=300)
@given(TARGET, st.lists(st.floats(0.1, 1e4), min_size=2, max_size=40))
def test_without_minima_every_device_gives_the_same_part_of_its_room(
    target: float, rooms: list[float]
) -> None:
    room = np.array(rooms)
    parts = allocate(target, room) / room
    assert float(parts.max() - parts.min()) <= 1e-12


@st.composite
def devices(draw: st.DrawFn) -> DeviceState:
    # Zero is added for its sign: sorting does not put -0.0 before 0.0, a range has to.
    low, high = sorted(draw(st.floats(-50, 50)) + 0.0 for _ in range(2))
    capacity = draw(st.none() | st.floats(0.1, 100))
    profile = DeviceProfile(
        device_id="dev",
        protocol="mqtt",
        min_kw=Kw(low),
        max_kw=Kw(high),
        control=draw(st.sampled_from(ControlKind)),
        lease=LeaseKind.TIME_TO_LIVE,
        capacity_kwh=None if capacity is None else Kwh(capacity),
    )
    soc = None if capacity is None else capacity * draw(st.floats(0.0, 1.0))
    return DeviceState(profile=profile, reference_kw=Kw(draw(st.floats(low, high))), soc_kwh=soc)


@settings(deadline=None, max_examples=300)
@given(devices(), st.sampled_from(Direction), st.floats(0.05, 24))
def test_using_all_the_room_stays_within_rating_kind_and_stored_energy(
    device: DeviceState, direction: Direction, hours: float
) -> None:
    profile, reference = device.profile, device.reference_kw or 0.0
    room = headroom(device, direction, hours)
    power = reference + direction.sign * room
    assert room >= 0
    assert profile.min_kw - 1e-9 <= power <= profile.max_kw + 1e-9
    if profile.control is ControlKind.LIMIT and room > 0:
        assert abs(power) <= abs(reference) + 1e-9
        assert power * reference >= -1e-9
    if device.soc_kwh is not None and profile.capacity_kwh is not None and room > 0:
        moved = power * hours
        if direction is Direction.UP:
            assert moved <= device.soc_kwh + 1e-6
        else:
            assert -moved * 0.9 <= profile.capacity_kwh - device.soc_kwh + 1e-6
    low, high = reachable(device, hours)
    assert low >= profile.min_kw
    assert high <= profile.max_kw
