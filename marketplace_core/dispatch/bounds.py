"""How far a device can move. `columns` says the same of a whole fleet at once."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from marketplace_core.dispatch.leases import unattended
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile
from marketplace_core.dispatch.sharing import allocate, allocate_tiers
from marketplace_core.dispatch.stretches import SLACK_KW
from marketplace_core.intervals import Interval
from marketplace_core.provenance import Confidence, Rule, Source
from marketplace_core.units import Direction, Kw

__all__ = [
    "NEGLIGIBLE_KW",
    "PLANNING",
    "DeviceState",
    "PlanningRule",
    "allocate",
    "allocate_tiers",
    "headroom",
    "reachable",
    "unusable",
    "within_deadline",
]

NEGLIGIBLE_KW: Final = 1e-3
"""A watt: a device with less room than this is left alone."""


class PlanningRule(Rule, frozen=True, kw_only=True):
    """Parameters of planning."""

    one_way_efficiency: float
    """Energy that passes a storage device's converter once, out of what is put in."""
    ramp_s: float
    """Seconds from its start within which a device has to be at its setpoint."""


PLANNING: Final = PlanningRule(
    id="proportional_headroom",
    title="Each device takes a share in proportion to its room",
    sources=(
        Source(
            states="one-way efficiency, the root of 90 % round trip",
            work="CityLearn Challenge 2022, battery attributes",
            as_of="2022",
            confidence=Confidence.READ,
        ),
        Source(
            states="shares in proportion to room; a setpoint is reached within a minute",
            work="Flexway",
            as_of="2026-11",
            confidence=Confidence.OWN,
        ),
    ),
    one_way_efficiency=0.9**0.5,
    ramp_s=60.0,
)


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """What the planner knows of a device."""

    profile: DeviceProfile
    reference_kw: Kw | None = None
    """Latest believed power, injection positive; None = it never reported."""
    soc_kwh: float | None = None
    """Energy stored now, where the device has storage."""
    available: bool = True
    """Whether the device says it can be driven now."""
    connected: bool = True
    """Whether it was heard of recently enough to be believed present."""
    wanted_kwh: float | None = None
    """Energy that a load with a deadline still wants; None for anything else."""
    leaves_at: datetime | None = None
    """The deadline; None = it may take as long as it likes."""
    take_kwh: tuple[float, float] | None = None
    """Least and most energy that it takes within the span planned for; see `within_deadline`."""


def unusable(device: DeviceState) -> str:
    """Why a device cannot be dispatched at all, or nothing."""
    profile = device.profile
    if refused := unattended(profile):
        return f"{refused}: refused for unattended dispatch"
    if not device.connected:
        return "it is not connected"
    if not device.available:
        return "it says that it is not available"
    if device.reference_kw is None:
        return "it has never reported its power"
    if profile.capacity_kwh is not None and device.soc_kwh is None:
        return "it has storage but does not report its stored energy"
    return ""


def reachable(device: DeviceState, hours: float, rule: PlanningRule = PLANNING) -> tuple[Kw, Kw]:
    """Lowest and highest power in kW that a usable device can hold for `hours`.

    A limit can only bring consumption or injection nearer to zero. Storage can inject
    what is stored and absorb what still fits, each less the loss in its converter. A load
    with a deadline can take no more than it wants, and no less than lets it be done in time.
    """
    profile, reference = device.profile, device.reference_kw or 0.0
    low, high = float(profile.min_kw), float(profile.max_kw)
    if profile.control is ControlKind.LIMIT:
        low = max(low, min(reference, 0.0))
        high = min(high, max(reference, 0.0))
    if device.take_kwh is not None:
        least, most = device.take_kwh
        low, high = max(low, -most / hours), min(high, 0.0 - least / hours)
    if profile.capacity_kwh is not None and device.soc_kwh is not None:
        free = max(0.0, profile.capacity_kwh - device.soc_kwh)
        high = min(high, device.soc_kwh * rule.one_way_efficiency / hours)
        low = max(low, -free / rule.one_way_efficiency / hours)
    return Kw(low), Kw(high)


def within_deadline(device: DeviceState, span: Interval) -> DeviceState:
    """The device with what it takes within `span`; unchanged when it has no deadline.

    Afterwards it may still charge at its full rate until it leaves: only what does not fit
    there has to be taken within the span.
    """
    if device.wanted_kwh is None:
        return device
    later_kwh = device.wanted_kwh
    if device.leaves_at is not None:
        hours_after = max(0.0, (device.leaves_at - span.end).total_seconds() / 3600.0)
        later_kwh = -device.profile.min_kw * hours_after
    least = max(0.0, device.wanted_kwh - later_kwh)
    return msgspec.structs.replace(device, take_kwh=(least, device.wanted_kwh))


def headroom(
    device: DeviceState, direction: Direction, hours: float, rule: PlanningRule = PLANNING
) -> Kw:
    """Flexibility in kW, never negative, that a usable device can hold for `hours`.

    It is no more than the device's ramp reaches in `rule.ramp_s`, and ends at a power that the
    device can run at: 0, or `min_on_kw` and more.
    """
    low, high = reachable(device, hours, rule)
    profile, reference = device.profile, device.reference_kw or 0.0
    room = max(0.0, high - reference if direction is Direction.UP else reference - low)
    if profile.ramp_kw_per_s is not None:
        room = min(room, profile.ramp_kw_per_s * rule.ramp_s)
    return Kw(_held(room, direction.sign * reference, profile.min_on_kw))


def _held(room: float, toward: float, min_on: float) -> float:
    """The largest share up to `room` that leaves the device at 0, or `min_on` away from it."""
    if min_on <= 0 or room + SLACK_KW >= min_on - toward:
        return room
    if toward < 0 and room + SLACK_KW >= -toward:
        return min(room, -toward)
    return max(0.0, min(room, -min_on - toward))
