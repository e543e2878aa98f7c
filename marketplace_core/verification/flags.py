"""What can be wrong with a device: one vocabulary for what is flagged and what is injected."""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec


class FlagKind(enum.Enum):
    """Ways in which a device fails to do, or to say, what it should."""

    IGNORES = "ignores"
    """It acknowledges a setpoint and does not move."""
    CLAMPS = "clamps"
    """It acknowledges a setpoint and moves only part of the way."""
    OFFLINE = "offline"
    """It went away: its broker said so, or it fell silent."""
    OPTS_OUT = "opts_out"
    """Its owner declined the event."""
    TIMES_OUT = "times_out"
    """Its bus is there and it does not answer."""
    MALFORMED = "malformed"
    """It sends what cannot be read."""
    REPLAYS = "replays"
    """It sends again what it had already dropped as stored."""


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """One thing found wrong with one device."""

    device_id: str
    kind: FlagKind
    at: datetime
    """Market time at which it was noticed."""
    after_intervals: float
    """Telemetry intervals from when it could first be seen until it was noticed."""
    order_id: str = ""
    """The order during whose delivery it was noticed; empty outside of one."""
    evidence: str = ""
