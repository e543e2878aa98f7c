"""An order goes with the dry run that showed it, or not at all where that is asked for."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from gateway.confirm import Confirmations
from gateway.credentials import Signer
from marketplace_core.commands import SubmitOrder
from marketplace_core.dispatch.dry_run import DryRun
from marketplace_core.errors import RejectedError
from marketplace_core.intervals import Interval, instant
from marketplace_core.units import Kw
from tests.harness.api import awarded_need, by, order, service
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
