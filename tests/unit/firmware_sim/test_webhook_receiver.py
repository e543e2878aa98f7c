"""The simulated aggregator's receiver: forged, replayed, reordered and late messages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from adapters.webhook.signature import SIGNATURE, TOLERANCE_S, sign
from adapters.webhook.wire import Dispatch, Ping, encode
from firmware_sim.servers.webhook import Aggregator

SECRET = "fxw_test-secret"


def dispatch(**changes: Any) -> Dispatch:
    now = datetime.now(UTC)
    start, end = now - timedelta(seconds=1), now + timedelta(seconds=60)
    fields: dict[str, Any] = {
        "id": "spt_1", "order_id": "ord_1", "revision": 0, "device_id": "agg-1", "issued_at": now,
        "start_time": start, "end_time": end, "power_kw": 25.0, "valid_from": start,
        "valid_until": end, "lease_s": 61.0,
    }  # fmt: skip
    fields.update(changes)
    if fields.get("cancelled"):
        fields["power_kw"] = None
    return Dispatch(**fields)


class Receiver:
    def __init__(self, server: Aggregator, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client

    async def send(
        self, body: bytes, *, secret: str = SECRET, at: float | None = None, header: str = ""
    ) -> httpx.Response:
        stamp = int(time.time() if at is None else at)
        signature = header or sign(body, [secret], stamp)
        return await self.client.post(self.server.url, content=body, headers={SIGNATURE: signature})

    def commanded_kw(self) -> float | None:
        return self.server.commanded_kw(datetime.now(UTC))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with (
        Aggregator(
            lambda message: (message.power_kw != 13.0, "unlucky"), secrets=[SECRET]
        ) as server,
        httpx.AsyncClient() as client,
    ):
        yield Receiver(server, client)


async def test_what_is_not_genuine_is_turned_away_unread(receiver: Receiver) -> None:
    body = encode(dispatch())
    now = time.time()
    answers = [
        await receiver.send(body, secret="another"),
        await receiver.send(body.replace(b"25.0", b"99.0"), header=sign(body, [SECRET], int(now))),
        await receiver.send(body, at=now - TOLERANCE_S - 5),
        await receiver.send(body, at=now + TOLERANCE_S + 5),
        await receiver.client.post(receiver.server.url, content=body),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert receiver.commanded_kw() is None
    assert receiver.server.decided == []
    assert len(receiver.server.rejected) == 5


async def test_a_replay_gets_the_same_answer_and_does_nothing(receiver: Receiver) -> None:
    body = encode(dispatch())
    first = await receiver.send(body)
    undo = dispatch(id="cxl_spt_1", cancelled=True)
    await receiver.send(encode(undo))
    assert receiver.commanded_kw() is None
    again = await receiver.send(body)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert receiver.commanded_kw() is None
    assert len(receiver.server.decided) == 2


async def test_an_older_message_that_comes_last_changes_nothing(receiver: Receiver) -> None:
    now = datetime.now(UTC)
    newer = dispatch(id="spt_2", power_kw=40.0, issued_at=now + timedelta(microseconds=1))
    older = dispatch(id="spt_1", issued_at=now)
    assert (await receiver.send(encode(newer))).status_code == 200
    assert (await receiver.send(encode(older))).status_code == 409
    assert receiver.commanded_kw() == 40.0
    revised = dispatch(id="spt_3", revision=1, power_kw=50.0, issued_at=now - timedelta(hours=1))
    await receiver.send(encode(revised))
    assert receiver.commanded_kw() == 50.0
    undo = dispatch(id="cxl_spt_2", cancelled=True, issued_at=now + timedelta(hours=1))
    assert (await receiver.send(encode(undo))).status_code == 409
    assert receiver.commanded_kw() == 50.0


async def test_a_late_one_is_gone_and_a_refused_one_is_not_held(receiver: Receiver) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    late = await receiver.send(encode(dispatch(valid_until=past)))
    assert late.status_code == 410
    refused = await receiver.send(encode(dispatch(id="spt_2", power_kw=13.0)))
    assert refused.json() == {"status": "refused", "reason": "unlucky"}
    assert receiver.commanded_kw() is None


async def test_it_answers_challenges_pings_and_questions(receiver: Receiver) -> None:
    echoed = await receiver.client.get(receiver.server.url, params={"echo": "a+b c"})
    assert echoed.text == "a+b c"
    ping = Ping(id="png_1", issued_at=datetime.now(UTC))
    assert (await receiver.send(encode(ping))).json()["status"] == "accepted"
    await receiver.send(encode(dispatch()))
    path = "/orders/ord_1"
    url = f"{receiver.server.status_url}/ord_1"
    signed = {SIGNATURE: sign(path.encode(), [SECRET], int(time.time()))}
    told = (await receiver.client.get(url, headers=signed)).json()
    assert told == {"active": True, "setpoint_id": "spt_1", "power_kw": 25.0}
    other = f"{receiver.server.status_url}/ord_2"
    assert (await receiver.client.get(other, headers=signed)).status_code == 401
    garbage = await receiver.send(b"{}")
    assert garbage.status_code == 422
