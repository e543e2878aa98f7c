"""An order goes with the dry run that showed it, or not at all where that is asked for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine

from gateway.confirm import Confirmations
from gateway.credentials import Signer
from gateway.store.journal import Journal
from gateway.store.market import set_order_state
from gateway.store.tables import metadata
from gateway.store.writer import Transaction
from marketplace_core.commands import SubmitOrder
from marketplace_core.dispatch.dry_run import CallEstimate, DryRun
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.dispatch.order import Call, Order
from marketplace_core.errors import RejectedError
from marketplace_core.intervals import Interval, instant
from marketplace_core.units import Direction, Kw
from tests.harness.api import awarded_need, by, order, running, service
from tests.unit.gateway.conftest import SteppingClock

START = instant("2017-07-21T00:00:00Z")
ORDER = SubmitOrder(
    need_id="need_1", kw=Kw(4.0), interval=Interval(START, START + timedelta(hours=1))
)
SHOWN = DryRun(
    feasible=True, reason="", calls=(), allocations=(), excluded=(), shortfall_kw=Kw(0.0),
    missing_kw=Kw(0.0), cost=Decimal("1.00"), currency="GBP",
)  # fmt: skip


def confirmations(clock: SteppingClock, *, required: bool = False) -> Confirmations:
    return Confirmations(Signer(b"k" * 32), clock, valid_for_s=60.0, required=required)


def test_a_token_is_good_for_its_order_until_it_expires() -> None:
    clock = SteppingClock()
    made = confirmations(clock, required=True)
    token, expires = made.give("org_b", ORDER, SHOWN)
    made.check("org_b", ORDER, token)
    clock.at = expires - timedelta(seconds=2)
    made.check("org_b", ORDER, token)
    with pytest.raises(RejectedError, match="expired"):
        made.check("org_b", ORDER, token)


@pytest.mark.parametrize(
    ("buyer", "change", "spoil", "what"),
    [
        ("org_c", {}, "", "not given out for you"),
        ("org_b", {"kw": Kw(4.5)}, "", "another order"),
        ("org_b", {"need_id": "need_2"}, "", "another order"),
        ("org_b", {}, "A", "not given out for you"),
    ],
)
def test_a_token_is_refused_for_anything_else(
    buyer: str, change: dict[str, object], spoil: str, what: str
) -> None:
    made = confirmations(SteppingClock())
    token, _ = made.give("org_b", ORDER, SHOWN)
    asked = msgspec.structs.replace(ORDER, **change)
    with pytest.raises(RejectedError, match=what) as caught:
        made.check(buyer, asked, spoil + token)
    assert caught.value.field == "confirm"


def test_without_a_token_only_where_none_is_asked_for() -> None:
    confirmations(SteppingClock()).check("org_b", ORDER, None)
    with pytest.raises(RejectedError, match="missing"):
        confirmations(SteppingClock(), required=True).check("org_b", ORDER, None)


async def test_orders_need_their_dry_run_where_the_configuration_says_so(tmp_path: Path) -> None:
    async with service(tmp_path, confirm_orders=True) as http:
        body = order(await awarded_need(http))
        refused = await http.post("/v1/orders", json=body, headers=by("org_b"))
        assert (refused.status_code, refused.json()["field"]) == (422, "confirm")
        shown = (await http.post("/v1/orders/dry-run", json=body, headers=by("org_b"))).json()
        # No device is bound here: the contract would be called, and nothing delivered.
        assert [each["call"]["kw"] for each in shown["calls"]] == [4.0]
        assert (shown["feasible"], shown["missing_kw"]) == (False, 4.0)
        other = {**body, "kw": 3.0, "confirm": shown["confirm"]}
        wrong = await http.post("/v1/orders", json=other, headers=by("org_b"))
        assert (wrong.status_code, wrong.json()["field"]) == (422, "confirm")
        good = {**body, "confirm": shown["confirm"]}
        assert (await http.post("/v1/orders", json=good, headers=by("org_b"))).status_code == 202


def rehearsed(*, kw: float = 4.0, planned: float = 4.0, cost: str = "1.00", **more: Any) -> DryRun:
    call = Call(contract_id="ctr_1", seller="org_s", kw=Kw(kw), price=Decimal(300))
    estimate = CallEstimate(
        call=msgspec.structs.replace(call, **more), planned_kw=Kw(planned), cost=Decimal(cost),
        currency="GBP", headroom_left_kw=Kw(0.0), contract_left_kw=Kw(0.0),
    )  # fmt: skip
    return msgspec.structs.replace(SHOWN, calls=(estimate,), cost=Decimal(cost))


OTHERWISE = [
    (rehearsed(kw=3.9), "other contracts"),
    (rehearsed(contract_id="ctr_2"), "other contracts"),
    (rehearsed(seller="org_t"), "other contracts"),
    (rehearsed(price=Decimal("300.01")), "other contracts"),
    (msgspec.structs.replace(rehearsed(), shortfall_kw=Kw(0.5)), "other contracts"),
    (msgspec.structs.replace(rehearsed(), feasible=False), "other contracts"),
    (rehearsed(planned=3.7), "devices can take 3.700 kW, 4.000 kW were shown"),
    (rehearsed(cost="1.10"), "it costs 1.10 GBP, 1.00 were shown"),
]


@pytest.mark.parametrize(("now", "what"), OTHERWISE)
def test_a_token_is_refused_when_the_order_would_do_something_else(now: DryRun, what: str) -> None:
    made = confirmations(SteppingClock())
    token, _ = made.give("org_b", ORDER, rehearsed())
    with market() as transaction, pytest.raises(RejectedError, match=what) as caught:
        made.submit(
            transaction, made.check("org_b", ORDER, token), rehearse=lambda: now, submit=fail
        )
    assert (caught.value.field, "dry run" in caught.value.remedy) == ("confirm", True)


def test_a_battery_that_drained_a_little_meanwhile_does_not_void_a_token() -> None:
    made = confirmations(SteppingClock())
    token, _ = made.give("org_b", ORDER, rehearsed())
    claim = made.check("org_b", ORDER, token)
    with market() as transaction:
        now = rehearsed(planned=3.9, cost="0.97")
        assert made.submit(transaction, claim, rehearse=lambda: now, submit=ordered).id == "ord_1"


def test_a_token_is_good_for_one_order_and_another_of_the_same_instant_for_another() -> None:
    made = confirmations(SteppingClock())
    tokens = {made.give("org_b", ORDER, rehearsed())[0] for _ in range(2)}
    assert len(tokens) == 2
    with market() as transaction:
        for token in tokens:
            claim = made.check("org_b", ORDER, token)
            made.submit(transaction, claim, rehearse=rehearsed, submit=ordered)
            with pytest.raises(RejectedError, match="order ord_1 was made with it"):
                made.submit(transaction, claim, rehearse=rehearsed, submit=fail)


@contextmanager
def market() -> Iterator[Transaction]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        yield Transaction(connection, Journal(SteppingClock(), 1), None)
    engine.dispose()


def ordered() -> Order:
    return Order(
        id="ord_1", buyer="org_b", need_id="need_1", feeder="F-1", direction=Direction.UP,
        kw=Kw(4.0), interval=ORDER.interval,
    )  # fmt: skip


def fail() -> Order:
    raise AssertionError("nothing may be ordered")


async def test_a_token_makes_one_order_and_a_repeat_gets_the_kept_answer(tmp_path: Path) -> None:
    async with service(tmp_path) as http:
        body = order(await awarded_need(http))
        shown = (await http.post("/v1/orders/dry-run", json=body, headers=by("org_b"))).json()
        body["confirm"] = shown["confirm"]
        key = by("org_b", **{"Idempotency-Key": "k1"})
        made = await http.post("/v1/orders", json=body, headers=key)
        assert made.status_code == 202
    async with service(tmp_path) as http:  # it is used up for good, not until the next start
        again = await http.post("/v1/orders", json=body, headers=key)
        assert (again.status_code, again.json()) == (202, made.json())
        for headers in (by("org_b"), by("org_b", **{"Idempotency-Key": "k2"})):
            refused = await http.post("/v1/orders", json=body, headers=headers)
            assert (refused.status_code, refused.json()["field"]) == (422, "confirm")
            assert made.json()["id"] in refused.json()["detail"]
        assert len((await http.get("/v1/orders", headers=by("org_b"))).json()) == 1


async def test_a_token_is_refused_once_its_contract_is_called_by_another_order(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (http, application):
        body = order(await awarded_need(http))
        shown = (await http.post("/v1/orders/dry-run", json=body, headers=by("org_b"))).json()
        first = (await http.post("/v1/orders", json=body, headers=by("org_b"))).json()["id"]

        async with asyncio.timeout(10):
            for _ in itertools.count():
                found = await http.get(f"/v1/orders/{first}", headers=by("org_b"))
                if found.json()["state"] == "infeasible":
                    break
                await asyncio.sleep(0.01)
        with application.engine.begin() as connection:  # as if there were devices for it
            set_order_state(connection, first, OrderState.PLANNED)
        late = {**body, "confirm": shown["confirm"]}
        refused = await http.post("/v1/orders", json=late, headers=by("org_b"))
        assert (refused.status_code, refused.json()["field"]) == (422, "confirm")
        assert refused.json()["rule"] == "an order does what its dry run showed"
        assert "dry-run" in refused.json()["remedy"]


async def test_a_dry_run_writes_nothing_and_refuses_what_an_order_would_be_refused_for(
    tmp_path: Path,
) -> None:
    async with service(tmp_path) as http:
        body = order(await awarded_need(http))
        before = (await http.get("/v1/journal", headers=by("org_o"))).json()
        for _ in range(2):
            answer = await http.post("/v1/orders/dry-run", json=body, headers=by("org_b"))
            assert answer.status_code == 200
        assert (await http.get("/v1/journal", headers=by("org_o"))).json() == before
        assert (await http.get("/v1/orders", headers=by("org_b"))).json() == []
        late = {**body, "interval": {"start": "2001-01-01T00:00Z", "end": "2001-01-01T00:05Z"}}
        for path in ("/v1/orders/dry-run", "/v1/orders"):
            answer = await http.post(path, json=late, headers=by("org_b"))
            assert (answer.status_code, answer.json()["field"]) == (422, "interval")
            foreign = await http.post(path, json=body, headers=by("org_other"))
            assert foreign.status_code == 404
