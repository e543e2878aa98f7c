"""Merit order over contracts."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from marketplace_core.dispatch.merit_order import award
from marketplace_core.dispatch.order import Order
from marketplace_core.events import OrderAwarded, OrderRejected
from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.contract import Contract
from marketplace_core.registry.asset import MeasurementPoint
from marketplace_core.units import Direction, Kw

START = instant("2017-07-21T00:00:00Z")
HOUR = Interval(START, START + timedelta(hours=1))
ORDER = Order(
    id="ord_1", buyer="org_b", need_id="need_1", feeder="fdr_1", direction=Direction.UP,
    kw=Kw(12.0), interval=HOUR, revision=3,
)  # fmt: skip


def contract(name: str, kw: float, price: str, **changes: object) -> Contract:
    base = Contract(
        id=name, need_id="need_1", bid_id=f"bid_{name}", buyer="org_b", seller=f"org_{name}",
        feeder="fdr_1", direction=Direction.UP, kw=Kw(kw), window=HOUR,
        utilisation_price=Decimal(price), currency="GBP", assets=("ast",),
        measurement_point=MeasurementPoint.DEVICE, baseline="zero", terms="utilisation",
        signed_by=("org_b", f"org_{name}"),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def test_cheapest_first_then_by_id_and_the_last_takes_the_rest() -> None:
    result = award(
        ORDER, [contract("c", 9, "300"), contract("b", 5, "200"), contract("a", 4, "200")], {}
    )
    assert isinstance(result, OrderAwarded)
    assert [(call.contract_id, call.kw) for call in result.calls] == [("a", 4), ("b", 5), ("c", 3)]
    assert result.calls[2].price == Decimal(300)
    assert result.calls[2].seller == "org_c"
    assert result.shortfall_kw == 0
    assert (result.order_id, result.revision) == ("ord_1", 3)


def test_dearer_contracts_are_not_called_once_the_order_is_covered() -> None:
    result = award(ORDER, [contract("a", 12, "1"), contract("b", 12, "2")], {})
    assert isinstance(result, OrderAwarded)
    assert [call.contract_id for call in result.calls] == ["a"]


def test_a_shortfall_is_stated() -> None:
    result = award(ORDER, [contract("a", 5, "1")], {})
    assert isinstance(result, OrderAwarded)
    assert result.shortfall_kw == 7


def test_what_overlapping_orders_use_is_not_called_twice() -> None:
    contracts = [contract("a", 10, "1"), contract("b", 10, "2")]
    result = award(ORDER, contracts, {"a": Kw(7.0)})
    assert isinstance(result, OrderAwarded)
    assert [(call.contract_id, call.kw) for call in result.calls] == [("a", 3), ("b", 9)]
    assert isinstance(award(ORDER, contracts, {"a": Kw(10.0), "b": Kw(10.0)}), OrderRejected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"need_id": "need_2"}, "serves need need_2"),
        ({"buyer": "org_x", "signed_by": ("org_x", "org_a")}, "belongs to another buyer"),
        ({"feeder": "fdr_2"}, "is on feeder fdr_2"),
        ({"direction": Direction.DOWN}, "is for DOWN"),
        ({"signed_by": ("org_b",)}, "is not signed by both sides"),
        ({"signed_by": ("org_a",)}, "is not signed by both sides"),
        (
            {"window": Interval(START, START + timedelta(minutes=59))},
            "covers 2017-07-21T00:00:00+00:00 to 2017-07-21T00:59:00+00:00 only",
        ),
        ({"window": Interval(START + timedelta(minutes=1), HOUR.end)}, "covers"),
        ({"kw": 0.0}, "is already called in full"),
    ],
)
def test_an_unfit_contract_is_passed_over_with_its_reason(
    changes: dict[str, object], words: str
) -> None:
    unfit = msgspec.structs.replace(contract("a", 12, "1"), **changes)
    alone = award(ORDER, [unfit], {})
    assert isinstance(alone, OrderRejected)
    assert f"a {words}" in alone.reason
    beside = award(ORDER, [unfit, contract("b", 12, "2")], {})
    assert isinstance(beside, OrderAwarded)
    assert [call.contract_id for call in beside.calls] == ["b"]


def test_without_contracts_the_order_is_rejected() -> None:
    result = award(ORDER, [], {})
    assert isinstance(result, OrderRejected)
    assert result.reason == "no contract can serve the order: the need has none"
    assert result.revision == 3
