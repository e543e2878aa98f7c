"""Dispatch: which devices of a plan are told something, and which are left as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import msgspec
from sqlalchemy import Engine

from gateway.stages.dispatch.stage import Dispatch
from gateway.store.market import add_order
from gateway.store.setpoints import add_setpoints, end_setpoints, setpoints_of
from gateway.store.writer import Writer
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import Record
from tests.harness.running_order import (
    DEVICES,
    MINUTE,
    ORDER_ID,
    START,
    order,
    planned,
    profiles,
    setpoint,
)


async def told(
    engine: Engine, writer: Writer, wanted_kw: Mapping[str, float], *stopped: str
) -> dict[str, list[float]]:
    """Setpoints of each device by revision: the first plan, a stop, a plan of other powers."""
    numbers = count()
    heard: list[Setpoint] = []
    stage = Dispatch(
        profiles=profiles(), new_id=lambda kind: f"{kind}-{next(numbers)}",
        planned=heard.extend, stopped=lambda _order, _at: None,
    )  # fmt: skip
    plan = planned(START + 10 * MINUTE, revision=1)
    allocations = tuple(
        msgspec.structs.replace(each, power_kw=wanted_kw[each.device_id])
        for each in plan.allocations
    )
    plan = msgspec.structs.replace(plan, allocations=allocations)

    def work(transaction: Any) -> None:
        add_order(transaction.connection, order(), OrderState.SUBMITTED)
        add_setpoints(transaction.connection, [setpoint(device) for device in DEVICES])
        end_setpoints(
            transaction.connection, START + 9 * MINUTE, ids=[f"{each}-r0" for each in stopped]
        )
        stage.handle(
            Record(shard=0, sequence=1, at=plan.interval.start, stream=ORDER_ID, fact=plan),
            transaction,
        )

    await writer.transact(work)
    powers: dict[str, list[float]] = {device: [] for device in DEVICES}
    with engine.connect() as connection:
        rows = setpoints_of(connection, ORDER_ID)
    for row in sorted(rows, key=lambda row: row.setpoint.revision):
        powers[row.setpoint.device_id].append(row.setpoint.power_kw)
    assert [each.power_kw for each in heard] == [kw for own in powers.values() for kw in own[1:]]
    return powers


async def test_only_what_changes_is_told(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    wanted = {"bat-1": 4.005, "bat-2": 3.0}
    assert await told(engine, start_writer(), wanted) == {"bat-1": [4.0], "bat-2": [4.0, 3.0]}


async def test_what_an_emergency_stop_let_go_is_not_called_by_the_same_order_again(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    wanted = {"bat-1": 5.0, "bat-2": 3.0}
    powers = await told(engine, start_writer(), wanted, "bat-1")
    assert powers == {"bat-1": [4.0], "bat-2": [4.0, 3.0]}
