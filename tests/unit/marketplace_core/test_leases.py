"""What ends a setpoint when nobody speaks to a device any more, and what holds then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from marketplace_core.dispatch.leases import ended_by, lease_of, seconds_left, unattended
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.units import Kw

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def profile(
    lease: LeaseKind, *, fallback: float | None = None, kind: ControlKind = ControlKind.SETPOINT
) -> DeviceProfile:
    return DeviceProfile(
        device_id="d", protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0), lease=lease,
        control=kind, fallback_kw=None if fallback is None else Kw(fallback),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "by"),
    [
        (LeaseKind.REVERT_TIMER, "device"), (LeaseKind.HEARTBEAT, "device"),
        (LeaseKind.TIME_TO_LIVE, "device"), (LeaseKind.EVENT_END, "event"),
        (LeaseKind.WATCHDOG, "gateway"), (LeaseKind.NONE, "nobody"),
    ],
)  # fmt: skip
def test_each_kind_of_lease_says_who_ends_it(kind: LeaseKind, by: str) -> None:
    assert ended_by(profile(kind)) == by


def test_every_kind_is_known() -> None:
    assert {ended_by(profile(kind)) for kind in LeaseKind} == {
        "device", "event", "gateway", "nobody",
    }  # fmt: skip


def test_only_a_device_that_nobody_brings_back_is_refused_unattended() -> None:
    refused = [kind for kind in LeaseKind if unattended(profile(kind))]
    assert refused == [LeaseKind.NONE]
    assert not unattended(profile(LeaseKind.NONE, fallback=0.0))
    assert ended_by(profile(LeaseKind.NONE, fallback=0.0)) == "gateway"


def test_a_limit_that_ends_in_no_limit_says_so() -> None:
    free = lease_of(profile(LeaseKind.REVERT_TIMER, kind=ControlKind.LIMIT), 12.0)
    assert (free.then, free.seconds_left, free.refused) == ("no limit", 12.0, "")
    held = lease_of(profile(LeaseKind.WATCHDOG, fallback=-1.0, kind=ControlKind.LIMIT), None)
    assert held.then == "its fallback of -1 kW"
    assert lease_of(profile(LeaseKind.NONE), None).refused


def test_what_is_not_renewed_lasts_until_its_setpoint_is_over() -> None:
    ends = {"site": NOW + timedelta(seconds=90), "bat": NOW + timedelta(hours=1)}
    left = seconds_left({"bat": 12.0}, {**ends, "gone": NOW}, NOW, ["site", "bat"])
    assert left == {"bat": 12.0, "site": 90.0}
