"""How a published event ends, as the port's outcomes. Pure."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

import msgspec

from adapters.openadr.state import EventRecord
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)

_SLACK_KW: Final = 1e-6
"""Rounding that is not an attempt to leave a profile's bounds."""


def refused(setpoint: Setpoint, at: datetime, reason: str, evidence: str = "") -> Refused:
    """The VEN, its profile or a newer plan said no."""
    return Refused(
        setpoint_id=setpoint.id,
        device_id=setpoint.device_id,
        at=at,
        reason=reason,
        evidence=evidence,
    )


def unreachable(setpoint: Setpoint, at: datetime, reason: str) -> Unreachable:
    """Nothing was handed to the VEN."""
    return Unreachable(setpoint_id=setpoint.id, device_id=setpoint.device_id, at=at, reason=reason)


def unconfirmed(setpoint: Setpoint, at: datetime, reason: str) -> Unconfirmed:
    """It may be in force, or its time passed."""
    return Unconfirmed(setpoint_id=setpoint.id, device_id=setpoint.device_id, at=at, reason=reason)


def inadmissible(
    setpoint: Setpoint, profile: DeviceProfile, at: datetime
) -> Refused | Unconfirmed | None:
    """Why a setpoint is not published at all, or None."""
    low, high, power = profile.min_kw, profile.max_kw, setpoint.power_kw
    if not (math.isfinite(power) and low - _SLACK_KW <= power <= high + _SLACK_KW):
        return refused(setpoint, at, f"{power} kW is outside {low} .. {high} kW")
    if setpoint.valid_until <= at:
        return unconfirmed(setpoint, at, "expired before it was sent")
    return None


def settled(
    setpoint: Setpoint, event: EventRecord | None, at: datetime, *, overdue: bool
) -> SetpointOutcome | None:
    """What became of a published setpoint; None while the VEN may still answer.

    `event` is what stands for the setpoint's order and device now; `overdue` says that the
    time to answer is up.
    """
    if event is None or event.setpoint.id != setpoint.id:
        return _overtaken(setpoint, event, at)
    if event.cancelled:
        return refused(setpoint, at, "released before it was answered")
    if event.opt_in is not None:
        return _answered(event, at)
    if not overdue:
        return None
    if event.delivered:
        return unconfirmed(setpoint, at, "the VEN took the event and did not answer")
    return unreachable(setpoint, at, "the VEN did not poll")


def released(
    device_id: str, event: EventRecord | None, at: datetime, *, overdue: bool
) -> SetpointOutcome | None:
    """What became of a cancellation; None while the VEN may still acknowledge it."""
    if event is None or not event.cancelled or event.opt_in is not None:
        return Applied(setpoint_id="", device_id=device_id, at=at)
    if not overdue:
        return None
    if event.delivered:
        reason = "the VEN took the cancellation and did not answer"
        return Unconfirmed(setpoint_id="", device_id=device_id, at=at, reason=reason)
    reason = "the VEN did not poll"
    return Unreachable(setpoint_id="", device_id=device_id, at=at, reason=reason)


def _answered(event: EventRecord, at: datetime) -> SetpointOutcome:
    setpoint = event.setpoint
    if event.opt_in:
        return Applied(
            setpoint_id=setpoint.id,
            device_id=setpoint.device_id,
            at=at,
            lease_remaining_s=(setpoint.valid_until - at).total_seconds(),
        )
    declined = event.code.startswith("2")
    said = "opted out" if declined else "refused"
    outcome = refused(setpoint, at, f"the VEN {said}", f"response code {event.code}")
    return msgspec.structs.replace(outcome, declined=declined)


def _overtaken(setpoint: Setpoint, event: EventRecord | None, at: datetime) -> SetpointOutcome:
    if event is not None and event.setpoint.revision >= setpoint.revision:
        return refused(setpoint, at, f"superseded by {event.setpoint.id}")
    if setpoint.valid_until <= at:
        return unconfirmed(setpoint, at, "expired before it was answered")
    return unreachable(setpoint, at, "withdrawn: the VEN did not poll")
