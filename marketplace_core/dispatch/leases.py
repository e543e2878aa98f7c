"""Who ends what a device was told when nobody speaks to it any more, and what holds then.

No device is ever told something without an end: one that has neither a lease nor a declared
fallback is refused for unattended dispatch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind

EndedBy = Literal["device", "event", "gateway", "nobody"]
_BY: Final[Mapping[LeaseKind, EndedBy]] = {
    LeaseKind.REVERT_TIMER: "device",
    LeaseKind.TIME_TO_LIVE: "device",
    LeaseKind.HEARTBEAT: "device",
    LeaseKind.EVENT_END: "event",
    LeaseKind.WATCHDOG: "gateway",
}


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """How a device comes back, as it is shown."""

    kind: str
    """Key of the profile: `revert_timer`, `heartbeat`, `time_to_live`, `watchdog`, .."""
    ended_by: EndedBy
    """`device`: by itself, whatever becomes of us. `gateway`: not while that is gone."""
    seconds_left: float | None
    """Market seconds; None while nothing is in force."""
    then: str
    """What holds afterwards."""
    refused: str
    """Why it is not dispatched unattended; empty where it is."""


def lease_of(profile: DeviceProfile, seconds_left: float | None) -> Lease:
    """The lease of a device as it is shown."""
    return Lease(
        kind=profile.lease.value, ended_by=ended_by(profile), seconds_left=seconds_left,
        then=afterwards(profile), refused=unattended(profile),
    )  # fmt: skip


def ended_by(profile: DeviceProfile) -> EndedBy:
    """Who returns it; the gateway where nothing but a fallback is declared."""
    if profile.lease is LeaseKind.NONE:
        return "nobody" if profile.fallback_kw is None else "gateway"
    return _BY[profile.lease]


def unattended(profile: DeviceProfile) -> str:
    """Why a device must not be dispatched when nobody looks on, or nothing."""
    if ended_by(profile) == "nobody":
        return "it has neither a lease nor a fallback"
    return ""


def afterwards(profile: DeviceProfile) -> str:
    """What holds once it has come back."""
    if profile.fallback_kw is not None:
        return f"its fallback of {profile.fallback_kw:g} kW"
    if profile.control is ControlKind.LIMIT:
        return "no limit"
    return "its own behaviour"


def seconds_left(
    refreshed: Mapping[str, float], ends: Mapping[str, datetime], now: datetime,
    profiles: Collection[str],
) -> dict[str, float]:  # fmt: skip
    """Market seconds left per device that holds a setpoint.

    `refreshed`: of leases that the gateway renews; `ends`: when setpoints in force are over, for
    the devices that nobody renews anything of: an event, a declared fallback.
    """
    others = {
        device: max(0.0, (end - now).total_seconds())
        for device, end in ends.items() if device in profiles and device not in refreshed
    }  # fmt: skip
    return {**others, **refreshed}
