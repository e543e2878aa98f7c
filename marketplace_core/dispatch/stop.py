"""What an emergency stop means for a device, and what became of it."""

from __future__ import annotations

import enum

import msgspec

from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.units import Kw


class StopMeaning(enum.Enum):
    """What stopping a device means."""

    RELEASE = "release"
    """It goes back to its own behaviour."""
    ZERO = "zero"
    """It is held at 0 kW for one lease, then falls back by itself."""
    FALLBACK = "fallback"
    """It is held at its declared fallback for one lease; without one it is released."""


class StopOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of stopping one device."""

    device_id: str
    meaning: StopMeaning
    outcome: str
    """`applied`, `refused`, `unreachable` or `unconfirmed`."""
    reason: str = ""
    latency_s: float
    """Wall seconds from the request to the device's answer."""


def stop_power(profile: DeviceProfile, meaning: StopMeaning) -> Kw | None:
    """The power to hold a device at, or None when it is to be released.

    A device whose bounds leave out zero is held at the bound nearest to it.
    """
    match meaning:
        case StopMeaning.RELEASE:
            return None
        case StopMeaning.ZERO:
            return Kw(min(max(0.0, profile.min_kw), profile.max_kw))
        case StopMeaning.FALLBACK:
            return profile.fallback_kw
