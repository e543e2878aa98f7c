"""What adapters share: bounds of a setpoint before the wire, and devices driven side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from marketplace_core.dispatch.leases import unattended
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import Refused, Setpoint, SetpointOutcome, Unconfirmed

_ROUNDING_KW: Final = 1e-6


def refuse(
    setpoint: Setpoint, profile: DeviceProfile | None, at: datetime
) -> Refused | Unconfirmed | None:
    """Why a setpoint must not be sent, or None when it may.

    Unknown device, outside its bounds, without a way back: Refused. Too late: Unconfirmed,
    because an earlier sending may have reached the device.
    """
    if profile is None:
        return _refused(setpoint, at, "no such device is bound here")
    low, high = profile.min_kw - _ROUNDING_KW, profile.max_kw + _ROUNDING_KW
    if not low <= setpoint.power_kw <= high:
        reason = f"{setpoint.power_kw:g} kW is outside {profile.min_kw:g} .. {profile.max_kw:g} kW"
        return _refused(setpoint, at, reason)
    if no_way_back := unattended(profile):
        return _refused(setpoint, at, no_way_back)
    if setpoint.valid_until <= at:
        return Unconfirmed(
            setpoint_id=setpoint.id,
            device_id=setpoint.device_id,
            at=at,
            reason=f"expired at {setpoint.valid_until.isoformat()}: dropped",
        )
    return None


async def side_by_side(
    setpoints: Sequence[Setpoint], apply: Callable[[Setpoint], Awaitable[SetpointOutcome]]
) -> AsyncIterator[list[SetpointOutcome]]:
    """Apply setpoints each by itself; yield each outcome as it is known."""
    done: asyncio.Queue[SetpointOutcome] = asyncio.Queue()

    async def one(setpoint: Setpoint) -> None:
        done.put_nowait(await apply(setpoint))

    async with asyncio.TaskGroup() as tasks:
        for setpoint in setpoints:
            tasks.create_task(one(setpoint))
        for _ in setpoints:
            yield [await done.get()]


def _refused(setpoint: Setpoint, at: datetime, reason: str) -> Refused:
    return Refused(setpoint_id=setpoint.id, device_id=setpoint.device_id, at=at, reason=reason)
