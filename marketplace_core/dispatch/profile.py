"""What a device can do, whatever protocol it speaks.

Bounds are absolute active power at the device's terminals, injection positive.
A charger that draws up to 6.6 kW has `min_kw=-6.6, max_kw=0`.
"""

from __future__ import annotations

import enum

import msgspec

from marketplace_core.units import Kw, Kwh


class ControlKind(enum.Enum):
    """What the device does with the number it is given."""

    SETPOINT = "setpoint"
    """It drives its power to the number."""
    LIMIT = "limit"
    """It keeps its consumption (or injection) from exceeding the number."""


class LeaseKind(enum.Enum):
    """How a device falls back when nobody speaks to it any more."""

    REVERT_TIMER = "revert_timer"
    """A timer in the device, written before the setpoint (SunSpec `WSetRvrtTms`)."""
    TIME_TO_LIVE = "time_to_live"
    """The command carries a relative time to live that the device itself counts down."""
    EVENT_END = "event_end"
    """The command is an event with a start and a duration (OpenADR)."""
    HEARTBEAT = "heartbeat"
    """The gateway counts up a register each second; when it stops, the unit goes to the fallback
    that its profile declares (SunSpec model 715)."""
    WATCHDOG = "watchdog"
    """The gateway returns the device to its fallback; lost when the gateway is lost."""
    NONE = "none"
    """Nothing: refused for unattended dispatch."""


class LeaseRefresh(enum.Enum):
    """How a lease is kept while its setpoint lasts."""

    HALF_TIME = "half_time"
    """Written again at half its time."""
    LONG = "long"
    """One long lease up to the setpoint's end, where writes wear the device's flash: renewals
    only read back. The price: when the gateway dies the device goes on until then."""


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Limits, control and safety of one device. Every command is bounded by it."""

    device_id: str
    protocol: str
    """`mqtt`, `sparkplug`, `modbus`, `openadr` or `webhook`."""
    min_kw: Kw
    max_kw: Kw
    control: ControlKind = ControlKind.SETPOINT
    lease: LeaseKind = LeaseKind.NONE
    lease_s: float = 0.0
    """Longest time in seconds (of device time) that one command may stand unrefreshed."""
    fallback_kw: Kw | None = None
    """Power the device returns to when its lease ends; None = its own autonomous behaviour."""
    capacity_kwh: Kwh | None = None
    """Usable energy of a storage device; None when it has none."""
    notice_s: float = 0.0
    """Market seconds ahead of its start at which a setpoint is sent (OpenADR events)."""
    telemetry_s: float = 60.0
    """Expected seconds between two readings, in market time."""
    aggregate: bool = False
    """A fleet that its owner drives: that it falls short is settled, not diagnosed."""
    tier: int = 0
    """Devices of a higher tier are planned only once the lower ones are used up: curtailing
    generation wastes it, so it comes last."""
    weight: float = 1.0
    """Part that it takes beside others, where shares are proportional or equal."""
    rank: float = 0.0
    """The lowest rank serves first, where shares go by priority."""
    ramp_kw_per_s: float | None = None
    """How fast its power can change, in kW per second (of device time); None = at once."""
    min_on_kw: Kw = Kw(0.0)
    """Below this, in either direction, it does not run: its power is 0 or at least this."""
    step_kw: float = 0.0
    """Steps of power that the device can hold; 0 = any. Rounded towards zero, never to more."""
    write_every_s: float = 0.0
    """Least wall seconds between two setpoint writes; 0 = no limit. A release may always come."""
    writes_per_day: int = 0
    """Write requests that the device's flash may take in any 24 hours; 0 = no limit."""
    refresh: LeaseRefresh = LeaseRefresh.HALF_TIME
    longest_lease_s: float = 0.0
    """Longest market seconds of a long lease; 0 = whatever is left of the setpoint."""
