"""Setpoints as messages, and the ends of deliveries as outcomes. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final, Literal, assert_never

from msgspec import UNSET, UnsetType

from adapters.webhook.courier import Delivered
from adapters.webhook.link import NotSent
from adapters.webhook.wire import Accepted, Declined, Dispatch, EventType, Unclear
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.ports import TimeMap

_DAY_AHEAD: Final = timedelta(hours=12)
_HOUR_AHEAD: Final = timedelta(hours=1)
_ROUNDING_KW: Final = 1e-6


def delivery_id(endpoint_id: str, message_id: str) -> str:
    """The same for every attempt to bring one message to one endpoint."""
    return "dlv_" + hashlib.sha256(f"{endpoint_id}|{message_id}".encode()).hexdigest()[:32]


def dispatch(
    setpoint: Setpoint, profile: DeviceProfile, *, issued_at: datetime, time_map: TimeMap
) -> Dispatch:
    """The message that asks for a setpoint; `issued_at` is wall time."""
    start, end = time_map.to_wall(setpoint.valid_from), time_map.to_wall(setpoint.valid_until)
    direction, change_kw, most_kw = _change(setpoint.power_kw, profile)
    at_most = most_kw is not UNSET and change_kw is not UNSET and change_kw >= most_kw
    return Dispatch(
        id=setpoint.id,
        order_id=setpoint.order_id,
        revision=setpoint.revision,
        device_id=setpoint.device_id,
        issued_at=issued_at,
        start_time=start,
        end_time=end,
        event_type=_event_type(start - issued_at),
        energy_kw=None if at_most else change_kw,
        power_kw=float(setpoint.power_kw),
        direction=direction,
        share=UNSET if change_kw is UNSET or most_kw is UNSET else min(1.0, change_kw / most_kw),
        valid_from=start,
        valid_until=end,
        lease_s=(end - start).total_seconds(),
    )


def cancellation(sent: Setpoint, *, revision: int, issued_at: datetime, end: datetime) -> Dispatch:
    """The message that withdraws what was sent, up to `revision`; instants are wall time."""
    return Dispatch(
        id=f"cxl_{sent.id}",
        order_id=sent.order_id,
        revision=revision,
        device_id=sent.device_id,
        issued_at=issued_at,
        start_time=issued_at,
        end_time=end,
        cancelled=True,
        valid_from=issued_at,
        valid_until=end,
        lease_s=0.0,
    )


def outcome(
    result: Delivered, setpoint_id: str, device_id: str, at: datetime, *, lease_s: float | None
) -> SetpointOutcome:
    """What the end of a delivery means; `lease_s` is what is left of an accepted one."""
    match result:
        case Accepted():
            return Applied(
                setpoint_id=setpoint_id, device_id=device_id, at=at, lease_remaining_s=lease_s
            )
        case Declined(reason=reason, evidence=evidence):
            return Refused(
                setpoint_id=setpoint_id,
                device_id=device_id,
                at=at,
                reason=reason,
                evidence=evidence,
            )
        case NotSent(reason=reason):
            return Unreachable(setpoint_id=setpoint_id, device_id=device_id, at=at, reason=reason)
        case Unclear(reason=reason):
            return Unconfirmed(setpoint_id=setpoint_id, device_id=device_id, at=at, reason=reason)
        case _:
            assert_never(result)


def _change(
    power_kw: float, profile: DeviceProfile
) -> tuple[Literal["UP", "DOWN"] | UnsetType, float | UnsetType, float | UnsetType]:
    """Direction, change from the fallback and the most it can be; unset where not known."""
    if profile.fallback_kw is None:
        return UNSET, UNSET, UNSET
    change = power_kw - profile.fallback_kw
    if abs(change) <= _ROUNDING_KW:
        return UNSET, 0.0, UNSET
    if change > 0:
        return "UP", change, profile.max_kw - profile.fallback_kw
    return "DOWN", -change, profile.fallback_kw - profile.min_kw


def _event_type(lead: timedelta) -> EventType:
    if lead >= _DAY_AHEAD:
        return EventType.DAY_AHEAD
    if lead >= _HOUR_AHEAD:
        return EventType.HOUR_AHEAD
    return EventType.STANDARD
