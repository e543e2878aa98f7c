"""Commanded against measured, device by device, while an order runs.

A device is judged by readings whose whole span lies after its setpoint took effect. Two in
a row that fall short make a finding; one that does what it should clears the count. What a
device cannot help is excused: an empty battery, a car that left.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from marketplace_core.dispatch.bounds import (
    PLANNING,
    DeviceState,
    headroom,
    unusable,
    within_deadline,
)
from marketplace_core.dispatch.order import Allocation, Call, Shortfall
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.intervals import Interval
from marketplace_core.provenance import Confidence, Rule, Source
from marketplace_core.units import Direction, Kw
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading


class TrackingRule(Rule, frozen=True, kw_only=True):
    """Parameters of the closed loop."""

    intervals: int
    """Readings in a row that make a finding."""
    tolerance_kw: float
    """Shortfall of a device that is never a finding."""
    tolerance_share: float
    """The same, as a part of the device's share; the larger one counts."""
    moved_share: float
    """Below this part of its share a device has not moved: it ignores rather than clamps."""
    spent_share: float
    """Storage within this part of empty (or full) can do no more."""
    revise_kw: float
    """Shortfall of a contract that is not worth a new plan."""
    rest_intervals: int
    """Telemetry intervals between two plans: devices have to get there before they are judged."""


TRACKING: Final = TrackingRule(
    id="two_intervals",
    title="Two readings in a row that fall short make a finding",
    sources=(
        Source(
            states="flagged within two telemetry intervals; tolerances",
            work="Flexway",
            as_of="2026-11",
            confidence=Confidence.OWN,
        ),
    ),
    intervals=2,
    tolerance_kw=0.2,
    tolerance_share=0.15,
    moved_share=0.15,
    spent_share=0.03,
    revise_kw=0.3,
    rest_intervals=3,
)


class Progress(enum.Enum):
    """How a device does."""

    UNKNOWN = "unknown"
    """No reading says anything about its setpoint yet."""
    FOLLOWS = "follows"
    EXCUSED = "excused"
    """It falls short and cannot help it."""
    SHORT = "short"
    """It falls short, not for long enough to say why."""
    IGNORES = "ignores"
    CLAMPS = "clamps"


FLAG_OF: Final[Mapping[Progress, FlagKind]] = {
    Progress.IGNORES: FlagKind.IGNORES,
    Progress.CLAMPS: FlagKind.CLAMPS,
}


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """One device under a setpoint."""

    profile: DeviceProfile
    direction: Direction
    allocation: Allocation
    since: datetime
    """When the setpoint took effect."""
    until: datetime
    """When it ends; what is measured afterwards says nothing about it."""
    progress: Progress = Progress.UNKNOWN
    delivered_kw: Kw = Kw(0.0)
    """Flexibility of the newest reading that counts, in the order's direction."""
    short_for: int = 0
    """Readings in a row that fell short."""
    first_short: datetime | None = None
    """End of the first of them."""


def track(device: Tracked, reading: Reading, rule: TrackingRule = TRACKING) -> Tracked:
    """The device after one more reading of it."""
    if reading.start < device.since or reading.end > device.until:
        return device
    allocation, sign = device.allocation, device.direction.sign
    delivered = sign * (reading.power_kw - allocation.reference_kw)
    lacking = sign * (allocation.power_kw - reading.power_kw)
    tolerance = max(rule.tolerance_kw, rule.tolerance_share * allocation.share_kw)
    fresh = msgspec.structs.replace(device, delivered_kw=Kw(delivered))
    if lacking <= tolerance:
        return _judged(fresh, Progress.FOLLOWS, 0, None)
    if _excused(device, reading, rule):
        return _judged(fresh, Progress.EXCUSED, 0, None)
    count = device.short_for + 1
    first = device.first_short or reading.end
    if count < rule.intervals:
        return _judged(fresh, Progress.SHORT, count, first)
    moved = delivered >= rule.moved_share * allocation.share_kw
    if moved and device.profile.aggregate:
        return _judged(fresh, Progress.EXCUSED, count, first)
    return _judged(fresh, Progress.CLAMPS if moved else Progress.IGNORES, count, first)


def shortfalls(devices: Iterable[Tracked]) -> tuple[Shortfall, ...]:
    """Devices that others have to make up for, with what they really give."""
    return tuple(
        Shortfall(
            device_id=each.allocation.device_id,
            contract_id=each.allocation.contract_id,
            delivered_kw=Kw(min(max(0.0, each.delivered_kw), each.allocation.share_kw)),
            reason=each.progress.value,
        )
        for each in devices
        if each.progress in {Progress.IGNORES, Progress.CLAMPS, Progress.EXCUSED}
    )


def missing(
    calls: Sequence[Call],
    short: Sequence[Shortfall],
    fleet: Mapping[str, Sequence[DeviceState]],
    *,
    direction: Direction,
    span: Interval,
    rule: TrackingRule = TRACKING,
) -> tuple[tuple[str, Kw], ...]:
    """What each contract cannot deliver with all its devices, in kW, where it is worth a call.

    `fleet` holds the devices of each contract, with the power that they would have by
    themselves as reference.
    """
    found: list[tuple[str, Kw]] = []
    given = {each.device_id: each.delivered_kw for each in short}
    for call in calls:
        able = 0.0
        for each in fleet.get(call.contract_id, ()):
            device = within_deadline(each, span)
            device_id = device.profile.device_id
            if device_id in given:
                able += given[device_id]
            elif not unusable(device):
                able += headroom(device, direction, span.hours, PLANNING)
        if call.kw - able > rule.revise_kw:
            found.append((call.contract_id, Kw(call.kw - able)))
    return tuple(found)


def _excused(device: Tracked, reading: Reading, rule: TrackingRule) -> bool:
    if not reading.available:
        return True
    if reading.wanted_kwh is not None and reading.wanted_kwh <= 0:
        return True
    capacity, stored = device.profile.capacity_kwh, reading.soc_kwh
    if capacity is None or stored is None:
        return False
    room = stored if device.direction is Direction.UP else capacity - stored
    return room <= rule.spent_share * capacity


def _judged(
    device: Tracked, progress: Progress, short_for: int, first_short: datetime | None
) -> Tracked:
    return msgspec.structs.replace(
        device, progress=progress, short_for=short_for, first_short=first_short
    )
