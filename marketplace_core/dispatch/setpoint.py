"""A setpoint, and the four ways it can end."""

from __future__ import annotations

from datetime import datetime

import msgspec

from marketplace_core.units import Kw


class Setpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An absolute power for one device over one interval: repeating it is harmless."""

    id: str
    order_id: str
    revision: int
    """Epoch of the plan this belongs to; a device or adapter drops older ones."""
    device_id: str
    power_kw: Kw
    """Absolute active power at the device's terminals, injection positive."""
    valid_from: datetime
    valid_until: datetime
    """After this instant the setpoint is dropped and reported, never applied."""
    lease_s: float
    """Seconds (of market time) that the device may hold it without a refresh."""


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    """The device acknowledged and its own register or status reads back the value."""

    setpoint_id: str
    device_id: str
    at: datetime
    read_back_kw: Kw | None = None
    """What the device says it was told; None where the protocol has no read-back."""
    lease_remaining_s: float | None = None
    """Seconds (of market time) left on the device's own timer, where it tells."""
    note: str = ""
    """What was made of the power that was asked for, where it is not the same."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The device, its profile or its owner said no; a retry cannot help."""

    setpoint_id: str
    device_id: str
    at: datetime
    reason: str
    evidence: str = ""
    declined: bool = False
    """The owner opted out, as is their right; the device could have done it."""
    rule: str = ""
    """The limit of its profile that refused, where one did: `writes_per_day`."""
    retry_at: datetime | None = None
    """Wall time from which on that limit lets it through; None = never, or not for want of time."""


class Unreachable(msgspec.Struct, frozen=True, kw_only=True, tag="unreachable"):
    """Nothing was written: the device could not be talked to."""

    setpoint_id: str
    device_id: str
    at: datetime
    reason: str


class Unconfirmed(msgspec.Struct, frozen=True, kw_only=True, tag="unconfirmed"):
    """It may or may not have been applied: written, but not confirmed or expired meanwhile."""

    setpoint_id: str
    device_id: str
    at: datetime
    reason: str


SetpointOutcome = Applied | Refused | Unreachable | Unconfirmed


class ReadBack(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says it is doing, read before anything is issued again."""

    device_id: str
    at: datetime
    active: bool
    """Whether an external setpoint is in force now."""
    setpoint_id: str | None = None
    """Id of the setpoint in force, where the protocol carries one."""
    setpoint_kw: Kw | None = None
    lease_remaining_s: float | None = None
