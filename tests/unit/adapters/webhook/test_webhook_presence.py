"""Endpoints that are dead, broken, slow or many: who is believed present, and who has to wait."""

from __future__ import annotations

import asyncio
import dataclasses

from firmware_sim.servers.webhook import Aggregator
from marketplace_core.dispatch.setpoint import Applied, Refused, Unconfirmed, Unreachable
from tests.harness.clocks import eventually
from tests.harness.lab import free_port
from tests.harness.webhook import (
    ACCEPTED,
    FAST,
    SECRET,
    Request,
    endpoint,
    foreign,
    http,
    issue,
    rig,
    says,
    setpoint,
    silent,
    yes,
)


async def test_a_dead_endpoint_is_noticed_by_pings_and_so_is_its_return() -> None:
    port = free_port()
    async with rig([endpoint(f"http://127.0.0.1:{port}/hook")], running=True) as here:
        for _ in range(2):
            assert not here.adapter.connected("agg-1")
            async with Aggregator(yes, secrets=[SECRET], port=port):
                await eventually(lambda: here.adapter.connected("agg-1"), what="a ping")
            await eventually(lambda: not here.adapter.connected("agg-1"), what="the silence")
        assert not here.adapter.connected("agg-9")


async def test_who_refuses_pings_is_not_believed_present(aggregator: Aggregator) -> None:
    aggregator.secrets[:] = ["another"]
    async with rig([endpoint(aggregator.url)], running=True) as here:
        await eventually(lambda: len(aggregator.rejected) > 2, what="refused pings")
        assert not here.adapter.connected("agg-1")
        assert "not set up" in here.courier.lane("whk_org_s").last_fault
        aggregator.secrets[:] = [SECRET]
        await eventually(lambda: here.adapter.connected("agg-1"), what="a ping")
        assert here.courier.lane("whk_org_s").last_fault == ""


async def test_what_is_withdrawn_while_it_waits_for_room_is_never_sent() -> None:
    free = asyncio.Event()

    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        await free.wait()
        writer.write(http(200, ACCEPTED))

    narrow = dataclasses.replace(FAST, per_endpoint=1)
    two = (("agg-1", "org_s"), ("agg-2", "org_s"))
    async with (
        foreign(behave) as server,
        rig([endpoint(server.url)], policy=narrow, devices=two) as here,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(issue(here, setpoint(1)))
        await eventually(lambda: bool(server.requests), what="the first dispatch")
        waiting = tasks.create_task(issue(here, setpoint(2, device_id="agg-2", order_id="ord_2")))
        await asyncio.sleep(0.1)
        releasing = tasks.create_task(here.adapter.release("agg-2", order_id="ord_2", revision=0))
        await eventually(lambda: len(server.requests) == 2, what="the cancellation")
        free.set()
        (outcome,) = await waiting
        assert isinstance(outcome, Refused)
        assert isinstance(await releasing, Applied)
        assert not [r for r in server.requests if b'"spt_2"' in r.body]


async def test_a_broken_endpoint_is_left_alone_and_tried_from_time_to_time() -> None:
    policy = dataclasses.replace(FAST, attempts=1, broken_after=2, trial_every_s=0.3)
    answers = says(http(500), http(500), http(200, ACCEPTED))
    async with foreign(answers) as server, rig([endpoint(server.url)], policy=policy) as here:
        lane = here.courier.lane("whk_org_s")
        for number in (1, 2):
            (outcome,) = await issue(here, setpoint(number))
            assert isinstance(outcome, Unconfirmed)
        assert lane.breaker.broken
        (outcome,) = await issue(here, setpoint(3))
        assert isinstance(outcome, Unreachable)
        assert "marked broken" in outcome.reason
        assert len(server.requests) == 2
        await asyncio.sleep(0.35)
        (outcome,) = await issue(here, setpoint(3))
        assert isinstance(outcome, Applied)
        assert not lane.breaker.broken
        assert here.counts == {"unconfirmed": 2, "broken": 1, "accepted": 1}


async def test_one_dead_endpoint_does_not_hold_up_the_others(aggregator: Aggregator) -> None:
    devices = [("agg-1", "org_s"), *((f"dead-{n}", "org_dead") for n in range(12))]
    many = [setpoint(n, device_id=name, order_id=f"ord_{n}") for n, (name, _) in
            enumerate(devices)]  # fmt: skip
    async with foreign(silent) as dead:
        endpoints = [endpoint(aggregator.url), endpoint(dead.url, "org_dead")]
        once = dataclasses.replace(FAST, attempts=1)
        async with rig(endpoints, devices=devices, policy=once) as here:
            first = [batch async for batch in here.adapter.issue(list(reversed(many)))]
            assert [type(outcome) for outcome in first[0]] == [Applied]
            rest = [outcome for batch in first[1:] for outcome in batch]
            assert len(rest) == 12
            assert {type(outcome) for outcome in rest} <= {Unconfirmed, Unreachable}


async def test_one_outcome_for_each_of_many(aggregator: Aggregator) -> None:
    devices = [(f"agg-{n}", "org_s") for n in range(200)]
    many = [setpoint(n, device_id=f"agg-{n}", order_id=f"ord_{n}") for n in range(200)]
    async with rig([endpoint(aggregator.url)], devices=devices) as here:
        outcomes = await issue(here, *many)
    assert sorted(outcome.setpoint_id for outcome in outcomes) == sorted(one.id for one in many)
    assert {type(outcome) for outcome in outcomes} == {Applied}
    assert len(aggregator.decided) == 200
