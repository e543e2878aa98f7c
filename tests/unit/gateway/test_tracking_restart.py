"""The closed loop after a restart: which orders it takes over, and whom it judges from when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from gateway.store.facts import record_fact
from gateway.store.market import add_order
from gateway.store.setpoints import add_setpoints, end_setpoints
from gateway.store.writer import Writer
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.dispatch.tracking import TRACKING
from marketplace_core.events import OrderSubmitted, StreetFact
from marketplace_core.verification.flags import FlagKind
from tests.harness.closed_loop import Loop
from tests.harness.running_order import (
    DEVICES,
    MINUTE,
    START,
    applied,
    begun,
    order,
    refused,
    setpoint,
)


async def journal(writer: Writer, *facts: StreetFact) -> None:
    def work(transaction: Any) -> None:
        add_order(transaction.connection, order(), OrderState.SUBMITTED)
        for fact in facts:
            if isinstance(fact, OrderSubmitted):
                transaction.append(fact.order_id, fact)
            else:
                record_fact(transaction, fact)

    await writer.transact(work)


async def test_after_a_restart_old_setpoints_are_judged_once_they_are_read_back(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    await journal(start_writer(), *begun())
    loop = Loop(engine, 30)
    loop.clock.at = restart = START + 10 * MINUTE
    for device in DEVICES:
        loop.measure(device, 10, *[0.0] * 19)
    again = restart + 6 * MINUTE
    loop.clock.happens[again].append(lambda: loop.hear(applied("bat-2", at=again)))
    commands = await loop.run()
    assert loop.kinds() == [("bat-2", FlagKind.IGNORES)]
    assert loop.flags.said[0]["since"] == again
    assert commands[0].since == again + TRACKING.intervals * MINUTE
    assert {short.device_id for command in commands for short in command.short} == {"bat-2"}


async def test_after_a_restart_no_plan_is_asked_for_during_the_rest(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    """A device confirms at once and still needs the time to get there."""
    await journal(start_writer(), *begun())
    loop = Loop(engine, 30)
    loop.clock.at = restart = START + 10 * MINUTE
    loop.clock.happens[restart + MINUTE].append(
        lambda: loop.hear(refused("bat-1", declined=False, at=restart))
    )
    commands = await loop.run()
    assert commands[0].since == restart + TRACKING.rest_intervals * MINUTE


async def test_after_a_restart_what_was_let_go_still_owes_and_is_not_judged(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    writer = start_writer()
    await journal(writer, *begun())

    def let_go(transaction: Any) -> None:
        add_setpoints(transaction.connection, [setpoint(device) for device in DEVICES])
        end_setpoints(transaction.connection, START + 9 * MINUTE, ids=["bat-1-r0"])

    await writer.transact(let_go)
    loop = Loop(engine, 30)
    loop.clock.at = START + 10 * MINUTE
    loop.clock.happens[START + 11 * MINUTE].append(lambda: loop.hear(applied(*DEVICES)))
    loop.measure("bat-1", 11, *[0.0] * 18)
    loop.measure("bat-2", 11, *[4.0] * 18)
    commands = await loop.run()
    assert {short.device_id for command in commands for short in command.short} == {"bat-1"}
    assert loop.flags.said == []


@pytest.mark.parametrize("known", [1, 2], ids=["submitted", "awarded"])
async def test_after_a_restart_an_order_that_was_not_planned_yet_is_followed(
    engine: Engine, start_writer: Callable[[], Writer], known: int
) -> None:
    facts = begun()
    await journal(start_writer(), *facts[:known])
    loop = Loop(engine, 30)
    loop.clock.happens[START + MINUTE].append(lambda: loop.hear(*facts[known:]))
    loop.measure("bat-1", 1, *[0.0] * 9)
    commands = await loop.run()
    assert {short.device_id for command in commands for short in command.short} == {"bat-1"}
