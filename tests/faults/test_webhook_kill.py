"""The real service dispatches an aggregate by webhook, and is killed where it hurts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.webhook.wire import Dispatch
from firmware_sim.servers.webhook import Aggregator
from gateway.children import Child
from tests.harness.clocks import eventually
from tests.harness.lab import Lab, contract, next_period, wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow]

SPEED = 60.0
MINUTES = 5
PROFILE = {
    "min_kw": -400.0, "max_kw": 100.0, "fallback_kw": 0.0, "lease": "event_end",
    "telemetry_s": 600.0,
}  # fmt: skip
ASSET = {
    "id": "ast-agg", "feeder": "F-114", "technology": "portfolio", "devices": ["agg-1"],
    "meter": "agg-1", "measurement_point": "device", "up_kw": 100.0,
}  # fmt: skip
EVENTS = ["order.planned", "order.settled"]


class Town:
    """A gateway, a seller that is an aggregator, and a buyer that is told what happens."""

    def __init__(self, folder: Path) -> None:
        self.lab = Lab(folder, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), SPEED, MINUTES)
        self.lab.wall_epoch = time.time()
        self.lab.sections = {
            "observe": {"grace_s": 60.0},
            "webhook": {"ping_s": 0.5, "trial_every_s": 0.3, "backoff_s": 0.1, "devices": [
                {"device_id": "agg-1", "organisation": "org_seller", "profile": PROFILE}]},
        }  # fmt: skip
        self.lab.write_settings()
        self.gateway: Child | None = None
        self.seller = Aggregator(self.decide)
        self.buyer = Aggregator(lambda _: (True, ""))
        self.on_dispatch: Callable[[], None] = lambda: None
        self.window: dict[str, str] = {}

    def decide(self, message: Dispatch) -> tuple[bool, str]:
        """Accept; what a test has to do first is done before the answer goes out."""
        assert message.power_kw == pytest.approx(60.0)
        self.on_dispatch()
        return True, ""

    def start(self) -> None:
        self.gateway = self.lab.start()

    def kill(self) -> None:
        assert self.gateway is not None
        self.gateway.kill()

    def register(self, *, status: bool = False) -> None:
        for who, server, events in (
            ("org_seller", self.seller, ["dispatch", *EVENTS]), ("org_buyer", self.buyer, EVENTS),
        ):  # fmt: skip
            body = {"url": server.url, "events": events}
            if status:
                body["status_url"] = server.status_url
            made = self.lab.client(who)._call("POST", "/v1/webhooks", json=body)
            server.secrets[:] = [made["secret"]]

    def order(self, periods: int) -> str:
        """Submit an order over a contract that begins soon; its telemetry is there."""
        lead = timedelta(seconds=5 * SPEED)
        start = next_period(self.lab.market_now() + lead, MINUTES)
        end = start + timedelta(minutes=periods * MINUTES)
        self.window = {"start": start.isoformat(), "end": end.isoformat()}
        need = contract(self.lab, [ASSET], kw=60.0, window=self.window, baseline="zero")
        self.report()
        order = {"need_id": need, "kw": 60.0, "interval": self.window}
        made: str = self.lab.client("org_buyer").submit_order(order, key="the-order")["id"]
        return made

    def report(self) -> None:
        """One reading that is fresh now."""
        at = self.lab.market_now().isoformat()
        text = f"series,start_utc,seconds,power_kw\nagg-1,{at},60,0.0\n"
        report = self.lab.client("org_seller").import_readings(text)
        assert report["accepted"] == 1, report

    def setpoints(self, order_id: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.lab.client("org_buyer").get(f"/v1/orders/{order_id}")[
            "setpoints"
        ]
        return rows

    def await_setpoint(self, order_id: str, state: str) -> None:
        wait_for(
            lambda: [row["state"] for row in self.setpoints(order_id)] == [state],
            seconds=40, what=f"a setpoint that is {state}",
        )  # fmt: skip

    def await_state(self, order_id: str, state: str) -> None:
        client = self.lab.client("org_buyer")
        wait_for(
            lambda: client.get(f"/v1/orders/{order_id}")["state"] == state,
            seconds=60, what=f"an order that is {state}",
        )  # fmt: skip

    def deliveries(self) -> list[dict[str, Any]]:
        client = self.lab.client("org_seller")
        (hook,) = client.get("/v1/webhooks")
        rows: list[dict[str, Any]] = client.get(f"/v1/webhooks/{hook['id']}/deliveries")
        return [row for row in rows if row["kind"] == "dispatch"]

    def commanded_kw(self) -> float | None:
        return self.seller.commanded_kw(datetime.now(UTC))


@asynccontextmanager
async def town(folder: Path, *, status: bool = False) -> AsyncIterator[Town]:
    here = Town(folder)
    async with here.seller, here.buyer:
        try:
            await asyncio.to_thread(here.start)
            await asyncio.to_thread(here.register, status=status)
            yield here
        finally:
            if here.gateway is not None:
                await asyncio.to_thread(here.gateway.stop)
            here.lab.close()


async def test_an_aggregate_is_dispatched_and_settled_and_both_sides_are_told(
    tmp_path: Path,
) -> None:
    async with town(tmp_path) as here:
        order_id = await asyncio.to_thread(here.order, 2)
        await asyncio.to_thread(here.await_setpoint, order_id, "applied")
        await eventually(lambda: here.commanded_kw() == 60.0, seconds=20.0, what="the start")
        await eventually(lambda: here.commanded_kw() is None, seconds=60.0, what="the end")
        await asyncio.to_thread(here.await_state, order_id, "settled")
        for side in (here.buyer, here.seller):
            await eventually(lambda side=side: len(side.notified) == 2, what="two notifications")  # type: ignore[misc]
            assert [told.event for told in side.notified] == EVENTS
            assert {told.data["order_id"] for told in side.notified} == {order_id}
        (own,) = here.seller.notified[0].data["allocations"]
        assert (own["device_id"], own["share_kw"]) == ("agg-1", pytest.approx(60.0))
        assert here.buyer.notified[0].data["planned_kw"] == pytest.approx(60.0)
        assert here.seller.notified[1].data["lines"] == here.buyer.notified[1].data["lines"]
        assert [d.id for d in here.seller.decided if d.cancelled] == []
        assert here.seller.rejected == here.buyer.rejected == []


@pytest.mark.parametrize("status", [False, True])
async def test_killed_between_delivery_and_answer_it_acts_once(
    tmp_path: Path, *, status: bool
) -> None:
    """An endpoint that can be asked is asked; the other is told again, and knows the id."""
    async with town(tmp_path, status=status) as here:
        order_id = await asyncio.to_thread(here.order, 5)
        here.on_dispatch = here.kill
        await eventually(lambda: bool(here.seller.decided), seconds=40.0, what="the delivery")
        here.on_dispatch = lambda: None
        await asyncio.to_thread(here.start)
        await asyncio.to_thread(here.await_setpoint, order_id, "applied")
        assert len(here.seller.decided) == 1
        (delivery,) = await asyncio.to_thread(here.deliveries)
        assert (delivery["status"], delivery["attempts"]) == ("accepted", 1 if status else 2)
        assert delivery["message_id"] == here.seller.decided[0].id
        assert here.commanded_kw() == 60.0


async def test_killed_after_the_answer_was_kept_nothing_is_sent_again(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        order_id = await asyncio.to_thread(here.order, 5)
        await asyncio.to_thread(here.await_setpoint, order_id, "applied")
        here.kill()
        await asyncio.to_thread(here.start)
        await eventually(lambda: here.commanded_kw() == 60.0, seconds=20.0, what="the start")
        await asyncio.to_thread(here.await_setpoint, order_id, "applied")
        (delivery,) = await asyncio.to_thread(here.deliveries)
        assert (delivery["status"], delivery["attempts"]) == ("accepted", 1)
        await eventually(lambda: here.commanded_kw() is None, seconds=60.0, what="the end")


async def test_the_aggregate_keeps_what_it_accepted_while_the_gateway_is_dead(
    tmp_path: Path,
) -> None:
    async with town(tmp_path) as here:
        order_id = await asyncio.to_thread(here.order, 1)
        await asyncio.to_thread(here.await_setpoint, order_id, "applied")
        here.kill()
        await eventually(lambda: here.commanded_kw() == 60.0, seconds=20.0, what="the start")
        await eventually(lambda: here.commanded_kw() is None, seconds=60.0, what="the end")
