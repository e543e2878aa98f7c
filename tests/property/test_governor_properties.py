"""Whatever is asked, a device is not written more, faster or further than its profile says."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from adapters.governor import Denied, Governor, Shaped, Writes
from marketplace_core.dispatch.profile import DeviceProfile, LeaseRefresh
from marketplace_core.units import Kw

START = datetime(2026, 7, 1, tzinfo=UTC)
DAY = timedelta(hours=24)
GAPS = st.lists(st.integers(0, 30_000), min_size=1, max_size=60)
REQUESTS = st.integers(1, 6)


def governed(writes: Writes | None = None, **fields: object) -> Governor:
    profile = DeviceProfile(
        device_id="bat-1", protocol="modbus", **{"min_kw": Kw(-5.0), "max_kw": Kw(5.0), **fields}
    )
    return Governor(profile, writes)


def instants(gaps: list[int]) -> list[datetime]:
    at, found = START, []
    for gap in gaps:
        at += timedelta(seconds=gap)
        found.append(at)
    return found


@given(gaps=GAPS, requests=st.lists(REQUESTS, min_size=60, max_size=60), budget=st.integers(1, 40))
def test_no_24_hours_hold_more_writes_than_the_budget(
    gaps: list[int], requests: list[int], budget: int
) -> None:
    governor, written = governed(writes_per_day=budget), list[tuple[datetime, int]]()
    for at, count in zip(instants(gaps), requests, strict=False):
        if governor.check(at, count) is None:
            governor.charge(at, count, setpoint=True)
            written.append((at, count))
    for end, _ in written:
        assert sum(n for at, n in written if end - DAY < at <= end) <= budget
    assert written or min(requests[: len(gaps)]) > budget


@given(gaps=GAPS, every=st.integers(1, 5_000))
def test_two_setpoints_are_never_nearer_than_the_interval(gaps: list[int], every: int) -> None:
    governor, last = governed(write_every_s=float(every)), None
    for at in instants(gaps):
        denied = governor.check(at, 1)
        assert (denied is None) == (last is None or at - last >= timedelta(seconds=every))
        if denied is None:
            governor.charge(at, 1, setpoint=True)
            last = at


@given(gaps=GAPS, budget=st.integers(6, 20), every=st.integers(0, 900))
def test_what_is_held_back_goes_through_at_the_instant_it_names(
    gaps: list[int], budget: int, every: int
) -> None:
    governor = governed(writes_per_day=budget, write_every_s=float(every))
    for at in instants(gaps):
        denied = governor.check(at, 6)
        if denied is None:
            governor.charge(at, 6, setpoint=True)
            continue
        assert denied.retry_at is not None
        assert at < denied.retry_at
        again = governor.check(denied.retry_at, 6)
        assert again is None or again.rule != denied.rule


@given(gaps=GAPS, budget=st.integers(1, 30), cut=st.integers(0, 60))
def test_a_restart_in_between_changes_no_decision(gaps: list[int], budget: int, cut: int) -> None:
    fields = {"writes_per_day": budget, "write_every_s": 60.0}
    whole = restarted = governed(**fields)
    restarted = governed(**fields)
    for number, at in enumerate(instants(gaps)):
        if number == cut:
            kept = msgspec.json.encode(restarted.writes)
            restarted = governed(msgspec.json.decode(kept, type=Writes), **fields)
        said = whole.check(at, 2)
        assert restarted.check(at, 2) == said
        if said is None:
            whole.charge(at, 2, setpoint=True)
            restarted.charge(at, 2, setpoint=True)


@given(power=st.floats(-6, 6), step=st.floats(0.001, 3), low=st.floats(-5, 5), span=st.floats(0, 8))
def test_a_power_in_steps_is_never_more_than_was_asked_and_never_out_of_bounds(
    power: float, step: float, low: float, span: float
) -> None:
    governor = governed(min_kw=Kw(low), max_kw=Kw(low + span), step_kw=step)
    shaped = governor.shape(power)
    if isinstance(shaped, Denied):
        assert shaped.rule in {"min_kw", "max_kw", "step_kw"}
        assert shaped.retry_at is None
        return
    assert abs(shaped.power_kw) <= abs(power) + 1e-6
    assert abs(shaped.power_kw - power) < step + 1e-6
    assert low - 1e-6 <= shaped.power_kw <= low + span + 1e-6
    assert shaped.power_kw == power or shaped.note
    off = math.remainder(shaped.power_kw, step)
    assert abs(off) <= 1e-5 * max(1.0, abs(power) / step)
    assert governor.shape(shaped.power_kw) == Shaped(power_kw=shaped.power_kw)


@given(
    lease=st.floats(1, 900), left=st.floats(1, 20_000), longest=st.floats(0, 7_200),
    once=st.booleans(),
)  # fmt: skip
def test_a_lease_is_never_shorter_than_asked_nor_longer_than_anybody_allows(
    lease: float, left: float, longest: float, *, once: bool
) -> None:
    refresh = LeaseRefresh.LONG if once else LeaseRefresh.HALF_TIME
    given_s = governed(refresh=refresh, longest_lease_s=longest).lease_s(lease, left)
    assert given_s >= lease
    if not once:
        assert given_s == lease
    elif longest:
        assert given_s <= max(lease, longest)
    assert given_s <= max(lease, left)


@given(lease=st.integers(10, 900), ends=st.integers(1, 20_000), longest=st.integers(0, 7_200))
def test_a_long_lease_is_renewed_before_it_ends_and_no_more_often_than_that(
    lease: int, ends: int, longest: int
) -> None:
    """Asked at half of the usual lease, as dispatch does: never a moment without a lease."""
    governor = governed(refresh=LeaseRefresh.LONG, longest_lease_s=float(longest))
    at, runs_out, writes = 0.0, 0.0, 0
    while at < ends:
        left = ends - at
        if not writes or governor.renews(lease, left, runs_out - at):
            runs_out = at + governor.lease_s(lease, left)
            writes += 1
        at += lease / 2
        assert runs_out >= min(at, ends)
    usual = math.ceil(ends / (lease / 2))
    assert writes <= usual
    if longest == 0:
        assert writes <= 2
