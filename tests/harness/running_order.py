"""One order over two batteries, told by its facts, and readings of those batteries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from marketplace_core.dispatch.order import Allocation, Call, Order
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Applied, Refused, Setpoint, Unreachable
from marketplace_core.events import (
    OrderAwarded,
    OrderPlanned,
    OrderSubmitted,
    SetpointsApplied,
    SetpointsIssued,
    SetpointsRefused,
    SetpointsUnreachable,
    StreetFact,
)
from marketplace_core.intervals import Interval
from marketplace_core.units import Direction, Kw
from marketplace_core.verification.reading import Reading

START = datetime(2026, 7, 20, 22, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SPAN = Interval(START, START + timedelta(hours=1))
ORDER_ID, CONTRACT_ID = "ord_1", "ctr_1"
DEVICES = ("bat-1", "bat-2")
SHARE_KW = 4.0
"""Of each device; by itself it would do nothing."""


def profiles() -> dict[str, DeviceProfile]:
    return {
        device: DeviceProfile(
            device_id=device, protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0),
            lease=LeaseKind.REVERT_TIMER, lease_s=900.0, telemetry_s=60.0,
        )
        for device in DEVICES
    }  # fmt: skip


def order() -> Order:
    return Order(
        id=ORDER_ID, buyer="org_buyer", need_id="nd_1", feeder="F-1", direction=Direction.UP,
        kw=Kw(2 * SHARE_KW), interval=SPAN,
    )  # fmt: skip


def setpoint(device: str, revision: int = 0) -> Setpoint:
    return Setpoint(
        id=f"{device}-r{revision}", order_id=ORDER_ID, revision=revision, device_id=device,
        power_kw=Kw(SHARE_KW), valid_from=SPAN.start, valid_until=SPAN.end, lease_s=900.0,
    )  # fmt: skip


def accepted() -> list[StreetFact]:
    """Submitted, awarded to one contract."""
    call = Call(
        contract_id=CONTRACT_ID, seller="org_s", kw=Kw(2 * SHARE_KW), price=Decimal(100)
    )  # fmt: skip
    return [
        OrderSubmitted(order_id=ORDER_ID, order=order()),
        OrderAwarded(order_id=ORDER_ID, calls=(call,), shortfall_kw=Kw(0.0)),
    ]


def planned(at: datetime = START, revision: int = 0) -> OrderPlanned:
    allocations = tuple(
        Allocation(
            device_id=device, contract_id=CONTRACT_ID, share_kw=Kw(SHARE_KW),
            reference_kw=Kw(0.0), power_kw=Kw(SHARE_KW),
        )
        for device in DEVICES
    )  # fmt: skip
    return OrderPlanned(
        order_id=ORDER_ID, revision=revision, interval=Interval(at, SPAN.end),
        allocations=allocations, missing_kw=Kw(0.0), excluded=(),
    )  # fmt: skip


def issued(*devices: str, revision: int = 0) -> SetpointsIssued:
    setpoints = tuple(setpoint(device, revision) for device in devices)
    return SetpointsIssued(order_id=ORDER_ID, revision=revision, setpoints=setpoints)


def applied(*devices: str, at: datetime = START, revision: int = 0) -> SetpointsApplied:
    outcomes = tuple(
        Applied(setpoint_id=f"{device}-r{revision}", device_id=device, at=at) for device in devices
    )
    return SetpointsApplied(order_id=ORDER_ID, revision=revision, outcomes=outcomes)


def refused(device: str, *, declined: bool, at: datetime = START) -> SetpointsRefused:
    one = Refused(
        setpoint_id=f"{device}-r0", device_id=device, at=at, reason="not now", declined=declined
    )
    return SetpointsRefused(order_id=ORDER_ID, outcomes=(one,))


def unreachable(device: str, at: datetime = START) -> SetpointsUnreachable:
    one = Unreachable(setpoint_id=f"{device}-r0", device_id=device, at=at, reason="silent")
    return SetpointsUnreachable(order_id=ORDER_ID, outcomes=(one,))


def begun() -> list[StreetFact]:
    """Every fact until both devices confirmed at the start."""
    return [*accepted(), planned(), issued(*DEVICES), applied(*DEVICES)]


def reading(device: str, minute: float, kw: float, **changes: Any) -> Reading:
    """Power over the minute that begins so many minutes after the start."""
    made = Reading(series=device, start=START + minute * MINUTE, seconds=60.0, power_kw=Kw(kw))
    return msgspec.structs.replace(made, **changes)
