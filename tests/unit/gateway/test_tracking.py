"""The closed loop over fakes: what is flagged, when a new plan is asked for, and how often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from gateway.stages.intake import EMITS
from gateway.store.engine import migrate, open_engine
from marketplace_core.dispatch.tracking import TRACKING
from marketplace_core.events import EmergencyStopped, OrderRevised
from marketplace_core.verification.flags import FlagKind
from tests.harness.closed_loop import Loop
from tests.harness.running_order import (
    CONTRACT_ID,
    DEVICES,
    MINUTE,
    ORDER_ID,
    SPAN,
    START,
    begun,
    issued,
    order,
    planned,
    refused,
)

FIRST_LOOK = TRACKING.rest_intervals
"""Minutes after the start."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A market in which nothing was ever contracted."""
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('empty') / 'market.db'}")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def loop(empty: Engine) -> Loop:
    return Loop(empty)


async def test_devices_that_do_their_share_are_left_alone(loop: Loop) -> None:
    loop.begin()
    for device in DEVICES:
        loop.measure(device, 0, *[4.0] * 9)
    assert await loop.run() == []
    assert loop.flags.said == []


async def test_two_short_readings_make_one_finding_of_what_could_first_be_seen(loop: Loop) -> None:
    loop.begin()
    loop.measure("bat-1", 0, 4.0, 0.0, 0.0, 0.0, 0.0)
    loop.measure("bat-2", 0, 2.0, 2.0, 2.0)
    await loop.run()
    assert loop.kinds() == [("bat-2", FlagKind.CLAMPS), ("bat-1", FlagKind.IGNORES)]
    clamps, ignores = loop.flags.said
    assert (clamps["since"], clamps["order_id"]) == (START, ORDER_ID)
    assert ignores["since"] == START + MINUTE
    assert ignores["evidence"] == "commanded 4.00 kW, measured 0.00 kW"


async def test_a_reading_that_came_before_the_confirmation_was_committed_counts(
    loop: Loop,
) -> None:
    told, confirmed = begun()[:-1], begun()[-1]
    first_minute = loop.clock.happens[START + MINUTE]
    first_minute.append(lambda: loop.hear(*told))
    loop.measure("bat-1", 0, 0.0, 0.0)  # two of them, the second ends the second minute
    first_minute.append(lambda: loop.hear(confirmed))
    await loop.run()
    (ignores,) = loop.flags.said
    assert (ignores["device_id"], ignores["kind"]) == ("bat-1", FlagKind.IGNORES)
    assert ignores["since"] == START


async def test_one_short_reading_is_no_finding(loop: Loop) -> None:
    loop.begin()
    loop.measure("bat-1", 0, 0.0, 4.0, 0.0, 4.0)
    assert await loop.run() == []
    assert loop.flags.said == []


async def test_a_device_that_comes_back_before_the_look_needs_no_new_plan(loop: Loop) -> None:
    loop.begin()
    loop.measure("bat-1", 0, 0.0, 0.0, 4.0)
    assert await loop.run() == []
    assert loop.kinds() == [("bat-1", FlagKind.IGNORES)]


async def test_an_owner_that_declined_is_said_to_opt_out(loop: Loop) -> None:
    loop.begin(refused("bat-1", declined=True, at=START + MINUTE), refused("bat-2", declined=False))
    await loop.run()
    assert loop.kinds() == [("bat-1", FlagKind.OPTS_OUT)]
    assert loop.flags.said[0]["since"] == START + MINUTE
    assert loop.flags.said[0]["evidence"] == "not now"


async def test_what_an_emergency_stop_let_go_is_made_up_for_and_not_found_fault_with(
    loop: Loop,
) -> None:
    stop = EmergencyStopped(
        emergency_id="emg_1", by="org_s", scope="organisation org_s", reason="smoke",
        at=START + MINUTE, orders=(), devices=(("bat-1", "release"),),
    )  # fmt: skip
    loop.begin(stop)
    loop.measure("bat-1", 0, *[0.0] * 9)
    loop.measure("bat-2", 0, *[4.0] * 9)
    command, *_ = await loop.run()
    assert [(s.device_id, s.delivered_kw, s.reason) for s in command.short] == [
        ("bat-1", 0.0, "it was let go by an emergency stop")
    ]
    assert loop.flags.said == []


async def test_a_shortfall_above_the_rule_asks_for_a_plan_of_what_is_left(loop: Loop) -> None:
    loop.begin()
    loop.measure("bat-1", 0, 1.0, 1.0, 1.0)
    command = (await loop.run())[0]
    at = START + FIRST_LOOK * MINUTE
    assert (command.order_id, command.revision, command.since) == (ORDER_ID, 1, at)
    assert [(s.device_id, s.delivered_kw) for s in command.short] == [("bat-1", 1.0)]
    assert command.missing == ((CONTRACT_ID, 8.0),)  # it has no other devices here
    assert command.reason == "1 devices fall 3.00 kW short of their share"
    assert loop.asked.emits == EMITS


@pytest.mark.parametrize(("kw", "asks"), [(4.0 - 0.61, True), (4.0 - 0.59, False)])
async def test_a_shortfall_within_a_devices_tolerance_is_worth_no_plan(
    loop: Loop, kw: float, *, asks: bool
) -> None:
    loop.begin()
    loop.measure("bat-1", 0, kw, kw, kw)
    assert bool(await loop.run()) is asks


@pytest.mark.parametrize(("later_kw", "plans"), [(1.0, 1), (0.71, 1), (1.29, 1), (0.69, 2)])
async def test_a_shortfall_that_the_plan_in_force_makes_up_for_asks_for_no_other(
    loop: Loop, later_kw: float, plans: int
) -> None:
    """3 kW are made up for; what is not 0.3 kW more is not worth another plan."""
    loop.begin()
    loop.measure("bat-1", 0, *[1.0] * 4, *[later_kw] * 5)

    def revised() -> None:
        fact = OrderRevised(order_id=ORDER_ID, revision=1, order=order(), missing=(),
                            short=loop.asked.commands[0].short, reason="short")  # fmt: skip
        loop.hear(fact, planned(loop.clock.now(), revision=1))

    loop.clock.happens[START + (FIRST_LOOK + 1) * MINUTE].append(revised)
    looks = [command.since for command in await loop.run()]
    rested = START + (FIRST_LOOK + 1 + TRACKING.rest_intervals) * MINUTE
    assert looks[1:2] == [rested] * (plans - 1)


async def test_no_new_plan_is_asked_for_during_the_rest_after_one(loop: Loop) -> None:
    """The plan at minute 5 did not say what it makes up for: it is looked at at minute 8."""
    loop.begin()
    loop.clock.happens[START + 2 * MINUTE].append(
        lambda: loop.hear(planned(START + 5 * MINUTE, revision=1))
    )
    loop.measure("bat-1", 0, *[0.0] * 9)
    looks = [(command.since - START) // MINUTE for command in await loop.run()]
    assert looks == [5 + TRACKING.rest_intervals, 6 + TRACKING.rest_intervals]


async def test_revisions_are_counted_where_intake_takes_them(empty: Engine) -> None:
    for grants in (True, False):
        loop = Loop(empty, FIRST_LOOK + 1, grants=grants)
        loop.begin()
        loop.measure("bat-1", 0, 0.0, 0.0, 0.0)
        assert len(await loop.run()) == 1
        assert loop.metrics.revisions._value.get() == float(grants)


async def test_an_order_that_is_nearly_over_is_not_planned_anew(empty: Engine) -> None:
    loop = Loop(empty, 60)
    loop.begin(planned(SPAN.end - 6 * MINUTE, revision=1))
    loop.measure("bat-1", 50, *[0.0] * 9)
    looks = [command.since for command in await loop.run()]
    assert looks == [SPAN.end - 3 * MINUTE]


async def test_a_new_setpoint_that_is_not_applied_yet_is_never_flagged(loop: Loop) -> None:
    loop.begin(issued("bat-1", revision=1))
    loop.measure("bat-1", 0, *[0.0] * 9)
    assert await loop.run() == []
    assert loop.flags.said == []
