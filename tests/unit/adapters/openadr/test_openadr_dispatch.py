from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from marketplace_core.dispatch.setpoint import Applied, Refused, Unconfirmed, Unreachable
from marketplace_core.errors import DeviceError
from marketplace_core.units import Kw


async def test_an_event_reaches_the_ven_and_opting_in_is_the_acknowledgement(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        setpoint = street.setpoint(power_kw=-80.0)
        (outcome,) = await street.issue(adapter, setpoint)
        assert isinstance(outcome, Applied)
        assert outcome.setpoint_id == setpoint.id
        assert outcome.read_back_kw is None
        assert outcome.lease_remaining_s == pytest.approx(3599.0, abs=120.0)
        await street.until(lambda: ven.commanded_kw(datetime.now(UTC)) is not None)
        assert ven.commanded_kw(datetime.now(UTC)) == -80.0
        (event,) = ven.events
        assert event.load_kw == 80.0
        wall_end = street.map.to_wall(setpoint.valid_until)
        assert event.end == wall_end
        assert ven.commanded_kw(wall_end) is None
        read = await adapter.read_back("dev_site")
        assert (read.active, read.setpoint_id, read.setpoint_kw) == (True, "sp_1", -80.0)


async def test_opting_out_is_a_refusal(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port, lambda _e: False) as ven:
        await street.until(lambda: ven.registrations)
        (outcome,) = await street.issue(adapter, street.setpoint())
        assert isinstance(outcome, Refused)
        assert "opted out" in outcome.reason
        assert ven.commanded_kw(datetime.now(UTC)) is None
        assert not (await adapter.read_back("dev_site")).active


async def test_a_ven_that_takes_an_event_and_says_nothing_is_unconfirmed(street: Any) -> None:
    async with (
        street.serving(timeout_s=0.3) as adapter,
        street.ven(adapter.port, lambda _e: None) as ven,
    ):
        await street.until(lambda: ven.registrations)
        (outcome,) = await street.issue(adapter, street.setpoint())
        assert isinstance(outcome, Unconfirmed)
        assert ven.events


async def test_a_ven_that_never_registered_is_unreachable(street: Any) -> None:
    async with street.serving() as adapter:
        (outcome,) = await street.issue(adapter, street.setpoint())
        assert isinstance(outcome, Unreachable)
        with pytest.raises(DeviceError) as caught:
            await adapter.read_back("dev_site")
        assert caught.value.retryable


async def test_an_event_reported_unreachable_never_arrives_later(street: Any) -> None:
    async with street.serving(timeout_s=0.2) as adapter:
        async with street.ven(adapter.port) as ven:
            await street.until(lambda: ven.registrations)
        (outcome,) = await street.issue(adapter, street.setpoint())
        assert isinstance(outcome, Unreachable)
        async with street.ven(adapter.port) as ven:
            await street.until(lambda: ven.registrations)
            assert ven.events == ()
            (outcome,) = await street.issue(adapter, street.setpoint())
            assert isinstance(outcome, Applied)


async def test_issuing_again_is_harmless_and_a_revision_modifies(street: Any) -> None:
    asked: list[Any] = []

    def decide(event: Any) -> bool:
        asked.append(event)
        return True

    async with street.serving() as adapter, street.ven(adapter.port, decide) as ven:
        await street.until(lambda: ven.registrations)
        first = street.setpoint(1)
        for _ in range(3):
            (outcome,) = await street.issue(adapter, first)
            assert isinstance(outcome, Applied)
        assert len(asked) == 1
        second = msgspec.structs.replace(first, id="sp_2", revision=1, power_kw=Kw(-40.0))
        (outcome,) = await street.issue(adapter, second)
        assert isinstance(outcome, Applied)
        assert [event.modification for event in asked] == [0, 1]
        assert len({event.id for event in asked}) == 1
        await street.until(lambda: ven.commanded_kw(datetime.now(UTC)) == -40.0)
        (outcome,) = await street.issue(adapter, first)
        assert isinstance(outcome, Refused)
        assert "superseded" in outcome.reason


async def test_release_cancels_and_the_cancelled_event_stays_in_the_set(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        await street.issue(adapter, street.setpoint(1))
        other = street.setpoint(2, order="ord_2", starts_in_s=1800.0)
        await street.issue(adapter, other)
        for _ in range(2):
            outcome = await adapter.release("dev_site", order_id="ord_1", revision=0)
            assert isinstance(outcome, Applied)
            assert outcome.setpoint_id == ""
        assert sorted(event.status for event in ven.events) == ["cancelled", "far"]
        assert ven.commanded_kw(datetime.now(UTC)) is None
        assert not (await adapter.read_back("dev_site")).active


async def test_release_of_an_older_revision_leaves_the_newer_one(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        await street.issue(adapter, street.setpoint(1, revision=3))
        outcome = await adapter.release("dev_site", order_id="ord_1", revision=2)
        assert isinstance(outcome, Refused)
        assert (await adapter.read_back("dev_site")).active


async def test_release_without_an_event_is_done(street: Any) -> None:
    async with street.serving() as adapter:
        outcome = await adapter.release("dev_site", order_id="ord_9", revision=0)
        assert isinstance(outcome, Applied)
        outcome = await adapter.release("dev_other", order_id="ord_9", revision=0)
        assert isinstance(outcome, Refused)


@pytest.mark.parametrize("power_kw", [-200.1, 0.1, float("nan"), float("inf")])
async def test_power_outside_the_profile_is_refused(street: Any, power_kw: float) -> None:
    async with street.serving() as adapter:
        (outcome,) = await street.issue(adapter, street.setpoint(power_kw=power_kw))
        assert isinstance(outcome, Refused)


async def test_what_is_over_is_unconfirmed_and_never_sent(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        past = street.setpoint(starts_in_s=-100.0, lasts_s=50.0)
        (outcome,) = await street.issue(adapter, past)
        assert isinstance(outcome, Unconfirmed)
        (outcome,) = await street.issue(adapter, street.setpoint(device_id="dev_other"))
        assert isinstance(outcome, Refused)
        assert ven.events == ()


async def test_outcomes_come_one_per_setpoint_as_they_arrive(street: Any) -> None:
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        group = [street.setpoint(n, order=f"ord_{n}") for n in range(5)]
        outcomes = await street.issue(adapter, *group, street.setpoint(9, power_kw=5.0))
        assert sorted(o.setpoint_id for o in outcomes) == [*(f"sp_{n}" for n in range(5)), "sp_9"]
        assert sum(isinstance(o, Applied) for o in outcomes) == 5


async def test_a_ven_is_connected_while_it_polls(street: Any) -> None:
    async with street.serving() as adapter:
        assert not adapter.connected("dev_site")
        assert not adapter.connected("dev_other")
        async with street.ven(adapter.port):
            await street.until(lambda: adapter.connected("dev_site"))
        await street.until(lambda: not adapter.connected("dev_site"), 4.0)


async def test_a_vanished_ven_cannot_be_released_for_sure(street: Any) -> None:
    async with street.serving(timeout_s=0.2) as adapter:
        async with street.ven(adapter.port) as ven:
            await street.until(lambda: ven.registrations)
            await street.issue(adapter, street.setpoint())
        outcome = await adapter.release("dev_site", order_id="ord_1", revision=0)
        assert isinstance(outcome, Unreachable)


async def test_nothing_is_left_behind(street: Any) -> None:
    before = asyncio.all_tasks()
    async with street.serving() as adapter, street.ven(adapter.port) as ven:
        await street.until(lambda: ven.registrations)
        await street.issue(adapter, street.setpoint())
    assert asyncio.all_tasks() == before
