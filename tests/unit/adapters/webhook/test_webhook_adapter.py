"""The adapter against an aggregator that checks signatures and holds what it accepted."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from adapters.webhook.config import DeliveryStatus, WebhookDevice, WebhookPolicy
from adapters.webhook.wire import Dispatch
from firmware_sim.servers.webhook import Aggregator
from marketplace_core.dispatch.profile import LeaseKind
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.errors import ConfigError, DeviceError
from marketplace_core.units import Kw
from tests.harness.clocks import eventually
from tests.harness.lab import free_port
from tests.harness.webhook import (
    ACCEPTED,
    FAST,
    SECRET,
    Request,
    device,
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


def no(_: Dispatch) -> tuple[bool, str]:
    return False, "the batteries are empty"


async def test_a_dispatch_is_taken_held_and_ends_by_itself(aggregator: Aggregator) -> None:
    async with rig([endpoint(aggregator.url)]) as here:
        one = setpoint()
        (outcome,) = await issue(here, one)
        assert isinstance(outcome, Applied)
        assert outcome.read_back_kw is None
        assert outcome.lease_remaining_s == pytest.approx(59.0, abs=5.0)
        now = datetime.now(UTC)
        assert aggregator.commanded_kw(now) == 25.0
        assert aggregator.commanded_kw(now, "agg-2") is None
        assert aggregator.commanded_kw(now + timedelta(seconds=61)) is None
        back = await here.adapter.read_back("agg-1")
        assert (back.active, back.setpoint_id, back.setpoint_kw) == (True, "spt_1", 25.0)


async def test_a_refresh_is_not_sent_again(aggregator: Aggregator) -> None:
    async with rig([endpoint(aggregator.url)]) as here:
        one = setpoint()
        for _ in range(3):
            (outcome,) = await issue(here, one)
            assert isinstance(outcome, Applied)
        assert list(here.log.attempts.values()) == [1]


async def test_a_refusal_is_a_refusal_and_is_not_repeated() -> None:
    async with (
        Aggregator(no, secrets=[SECRET]) as aggregator,
        rig([endpoint(aggregator.url)]) as here,
    ):
        (outcome,) = await issue(here, setpoint())
        assert isinstance(outcome, Refused)
        assert outcome.reason == "the batteries are empty"
        assert "HTTP 200" in outcome.evidence
        assert list(here.log.attempts.values()) == [1]
        assert not (await here.adapter.read_back("agg-1")).active


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"device_id": "agg-9"}, Refused), ({"power_kw": Kw(100.1)}, Refused),
        ({"power_kw": Kw(float("nan"))}, Refused), ({"starts_in": -90.0}, Unconfirmed),
    ],
)  # fmt: skip
async def test_what_must_not_be_sent_is_not(
    aggregator: Aggregator, changes: dict[str, object], kind: type
) -> None:
    async with rig([endpoint(aggregator.url)]) as here:
        (outcome,) = await issue(here, setpoint(**changes))
        assert type(outcome) is kind
        assert here.log.attempts == {}


async def test_without_an_endpoint_nothing_was_written_and_a_new_one_takes_effect_at_once(
    aggregator: Aggregator,
) -> None:
    async with rig([]) as here:
        one = setpoint()
        (outcome,) = await issue(here, one)
        assert isinstance(outcome, Unreachable)
        here.endpoints["org_s"] = endpoint(aggregator.url)
        (outcome,) = await issue(here, one)
        assert isinstance(outcome, Applied)


async def test_a_refused_connection_is_unreachable_and_may_be_tried_again() -> None:
    port = free_port()
    async with rig([endpoint(f"http://127.0.0.1:{port}/hook")]) as here:
        one = setpoint()
        (outcome,) = await issue(here, one)
        assert isinstance(outcome, Unreachable)
        assert not (await here.adapter.read_back("agg-1")).active
        async with Aggregator(yes, secrets=[SECRET], port=port):
            (outcome,) = await issue(here, one)
            assert isinstance(outcome, Applied)


async def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_delivery() -> None:
    script = says(http(500, b"oops"), http(503), http(200, ACCEPTED))
    async with foreign(script) as server, rig([endpoint(server.url)]) as here:
        (outcome,) = await issue(here, setpoint())
        assert isinstance(outcome, Applied)
    heads = [request.headers for request in server.requests]
    assert [head["flexway-attempt"] for head in heads] == ["1", "2", "3"]
    assert len({head["flexway-delivery"] for head in heads}) == 1
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize(
    "behave", [silent, says(http(500)), says(http(200, b"<html>welcome</html>"))]
)
async def test_without_an_answer_it_is_unconfirmed_never_active(behave: object) -> None:
    twice = dataclasses.replace(FAST, attempts=2)
    async with foreign(behave) as server, rig([endpoint(server.url)], policy=twice) as here:  # type: ignore[arg-type]
        (outcome,) = await issue(here, setpoint())
        assert isinstance(outcome, Unconfirmed)
        assert len(server.requests) == 2
        assert not (await here.adapter.read_back("agg-1")).active
        assert here.log.ends[-1][1] is DeliveryStatus.UNCONFIRMED


async def test_a_redirect_is_a_fault_of_configuration() -> None:
    async with (
        foreign(says(http(301, b"", "Location: http://127.0.0.1:1/"))) as server,
        rig([endpoint(server.url)]) as here,
    ):
        (outcome,) = await issue(here, setpoint())
    assert isinstance(outcome, Refused)
    assert "redirects" in outcome.reason


async def test_nothing_is_tried_beyond_its_end() -> None:
    slow = dataclasses.replace(FAST, attempts=20, backoff_s=0.3)
    async with foreign(says(http(500))) as server, rig([endpoint(server.url)], policy=slow) as here:
        one = setpoint(seconds=1.6)
        (outcome,) = await issue(here, one)
        assert isinstance(outcome, Unconfirmed)
        assert outcome.at >= one.valid_until
        assert 1 < len(server.requests) < 6


async def test_a_doubtful_dispatch_is_settled_later_and_acts_once() -> None:
    """The endpoint takes it, its answers are lost; later it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/hook"
    async with (
        rig([endpoint(url)], running=True) as here,
        Aggregator(yes, secrets=[SECRET], port=port) as aggregator,
    ):
        broken = AnswerLost(aggregator)
        (outcome,) = await issue(here, setpoint())
        assert isinstance(outcome, Unconfirmed)
        assert not (await here.adapter.read_back("agg-1")).active
        broken.mend()
        await eventually(lambda: here.log.ends[-1][1] is DeliveryStatus.ACCEPTED, what="ack")
        assert (await here.adapter.read_back("agg-1")).setpoint_id == "spt_1"
        assert [d.id for d in aggregator.decided] == ["spt_1"]


class AnswerLost:
    """Makes an aggregator answer 500 although it obeyed."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._obey = aggregator._obey
        aggregator._obey = self._lose  # type: ignore[method-assign]

    def _lose(self, message: Dispatch) -> tuple[int, object]:  # type: ignore[override]
        _, answer = self._obey(message)
        return 500, answer

    def mend(self) -> None:
        self._aggregator._obey = self._obey  # type: ignore[method-assign]
        known = self._aggregator._answers
        for key, (_, answer) in list(known.items()):
            known[key] = (200, answer)


async def test_a_release_is_a_cancellation_and_repeating_it_is_harmless(
    aggregator: Aggregator,
) -> None:
    async with rig([endpoint(aggregator.url)]) as here:
        await issue(here, setpoint())
        for _ in range(2):
            outcome = await here.adapter.release("agg-1", order_id="ord_1", revision=0)
            assert isinstance(outcome, Applied)
        assert aggregator.commanded_kw(datetime.now(UTC)) is None
        assert [d.cancelled for d in aggregator.decided] == [False, True]
        assert not (await here.adapter.read_back("agg-1")).active


async def test_a_release_of_an_older_revision_leaves_the_newer_one(aggregator: Aggregator) -> None:
    async with rig([endpoint(aggregator.url)]) as here:
        await issue(here, setpoint(), setpoint(2, revision=1, power_kw=Kw(50.0)))
        outcome = await here.adapter.release("agg-1", order_id="ord_1", revision=0)
        assert isinstance(outcome, Refused)
        (stale,) = await issue(here, setpoint(3))
        assert isinstance(stale, Refused)
        assert aggregator.commanded_kw(datetime.now(UTC)) == 50.0


async def test_a_release_overtakes_a_dispatch_that_hangs() -> None:
    held = asyncio.Event()

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        if b'"cancelled":false' in request.body:
            await held.wait()
        writer.write(http(200, ACCEPTED))

    narrow = dataclasses.replace(FAST, per_endpoint=1, concurrency=1, broken_after=1)
    async with foreign(behave) as server, rig([endpoint(server.url)], policy=narrow) as here:
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(issue(here, setpoint()))
            await eventually(lambda: bool(server.requests), what="the dispatch")
            outcome = await here.adapter.release("agg-1", order_id="ord_1", revision=0)
            assert isinstance(outcome, Applied)
            held.set()
        (dispatched,) = sending.result()
        assert isinstance(dispatched, Refused)
        assert not (await here.adapter.read_back("agg-1")).active
        assert len(server.requests) == 2


async def test_after_a_restart_only_what_was_acknowledged_is_active(aggregator: Aggregator) -> None:
    done, doubtful = setpoint(1), setpoint(2, order_id="ord_2", device_id="agg-2")
    two = (("agg-1", "org_s"), ("agg-2", "org_s"))
    async with rig([endpoint(aggregator.url)], devices=two) as here:
        here.adapter.restore(acknowledged=[done], doubtful=[doubtful])
        assert (await here.adapter.read_back("agg-1")).setpoint_id == "spt_1"
        assert not (await here.adapter.read_back("agg-2")).active
        outcomes = await issue(here, done, doubtful)
        assert [type(outcome) for outcome in outcomes] == [Applied, Applied]
        assert [d.id for d in aggregator.decided] == ["spt_2"]


async def test_a_repeat_and_an_issue_that_meet_are_one_delivery(aggregator: Aggregator) -> None:
    """After a restart the adapter settles what is in doubt while the gateway issues it again."""
    eager = dataclasses.replace(FAST, trial_every_s=0.02)
    async with rig([endpoint(aggregator.url)], policy=eager) as here:
        one = setpoint()
        here.adapter.restore(acknowledged=[], doubtful=[one])
        told = here.adapter._book.enter(one)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(here.adapter._settle(device(), told))
            for _ in range(3):
                tasks.create_task(issue(here, one))
        assert list(here.log.attempts.values()) == [1]
        assert [d.id for d in aggregator.decided] == ["spt_1"]


async def test_what_may_have_arrived_before_a_restart_is_not_called_unreachable() -> None:
    async with rig([endpoint(f"http://127.0.0.1:{free_port()}/")]) as here:
        here.adapter.restore(acknowledged=[], doubtful=[setpoint()])
        (outcome,) = await issue(here, setpoint())
        assert isinstance(outcome, Unconfirmed)
        assert "may have arrived" in outcome.reason


async def test_an_endpoint_that_can_be_asked_is_asked(aggregator: Aggregator) -> None:
    asked = endpoint(aggregator.url, status_url=aggregator.status_url)
    async with rig([asked]) as here:
        one = setpoint()
        here.adapter.restore(acknowledged=[], doubtful=[one])
        assert not (await here.adapter.read_back("agg-1")).active
        await issue(here, one)
        back = await here.adapter.read_back("agg-1")
        assert (back.active, back.setpoint_id, back.setpoint_kw) == (True, "spt_1", 25.0)
        assert here.log.ends[-1][:2] == ("dispatch", DeliveryStatus.ACCEPTED)
        aggregator._held.clear()
        assert not (await here.adapter.read_back("agg-1")).active
        aggregator.secrets[:] = ["another"]
        with pytest.raises(DeviceError, match="HTTP 401"):
            await here.adapter.read_back("agg-1")


async def test_what_cannot_be_asked_is_a_device_error() -> None:
    bad = endpoint("http://127.0.0.1:1/", status_url=f"http://127.0.0.1:{free_port()}/orders")
    async with rig([bad]) as here:
        here.adapter.restore(acknowledged=[setpoint()], doubtful=[])
        with pytest.raises(DeviceError) as caught:
            await here.adapter.read_back("agg-1")
        assert caught.value.retryable
        with pytest.raises(DeviceError, match="no webhook stands"):
            await here.adapter.read_back("agg-9")


def test_an_aggregate_carries_its_own_end() -> None:
    profile = msgspec.structs.replace(device().profile, lease=LeaseKind.WATCHDOG)
    with pytest.raises(ConfigError, match="event_end"):
        WebhookDevice(device_id="agg-1", organisation="org_s", profile=profile)


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(endpoint("https://hook.example/"))


def test_a_connection_cannot_outlast_its_attempt() -> None:
    with pytest.raises(ConfigError, match="answer_timeout_s"):
        WebhookPolicy(connect_timeout_s=5.0, answer_timeout_s=10.0)
