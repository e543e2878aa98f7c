"""What nothing but the gateway brings back is brought back before the gateway goes away.

After a kill there is no time for that: the setpoints are in the database, and the next start
ends what is over, and reads back and goes on with what is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from gateway.store.setpoints import SetpointRow, state_of
from marketplace_core.dispatch.leases import ended_by
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import DeviceAdapter

_GIVE_UP_S: Final = 5.0
"""Wall seconds: whoever stops the service waits for that long at most."""
_log = structlog.get_logger(__name__)


async def let_go(
    rows: Iterable[SetpointRow], profiles: Mapping[str, DeviceProfile],
    adapters: Mapping[str, DeviceAdapter],
) -> None:  # fmt: skip
    """Return devices of such rows to their fallback; all at once, and not for ever.

    `rows`: setpoints that were sent and whose time it is. Nothing is journalled: the next start
    reads the device back, and goes on with what is still valid.
    """
    newest: dict[str, Setpoint] = {}
    for row in rows:
        setpoint, profile = row.setpoint, profiles.get(row.setpoint.device_id)
        if profile is None or ended_by(profile) != "gateway":
            continue
        known = newest.get(setpoint.device_id)
        if known is None or known.revision <= setpoint.revision:
            newest[setpoint.device_id] = setpoint
    try:
        async with asyncio.timeout(_GIVE_UP_S), asyncio.TaskGroup() as tasks:
            for setpoint in newest.values():
                adapter = adapters[profiles[setpoint.device_id].protocol]
                tasks.create_task(_release(adapter, setpoint))
    except TimeoutError:
        _log.error("devices_left_alone", devices=sorted(newest), waited_s=_GIVE_UP_S)


async def _release(adapter: DeviceAdapter, setpoint: Setpoint) -> None:
    outcome = await adapter.release(
        setpoint.device_id, order_id=setpoint.order_id, revision=setpoint.revision
    )
    _log.warning(
        "device_let_go", device=setpoint.device_id, order_id=setpoint.order_id,
        outcome=state_of(outcome).value,
    )  # fmt: skip
