"""A dry run is what award and plan would do, with its price."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from marketplace_core.dispatch.bounds import DeviceState
from marketplace_core.dispatch.dry_run import rehearse
from marketplace_core.dispatch.merit_order import award
from marketplace_core.dispatch.order import Order
from marketplace_core.dispatch.planner import plan
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.events import OrderAwarded, OrderPlanned
from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.contract import Contract
from marketplace_core.registry.asset import MeasurementPoint
from marketplace_core.units import Direction, Kw

START = instant("2017-07-21T00:00:00Z")
HALF_HOUR = Interval(START, START + timedelta(minutes=30))
ORDER = Order(
    id="ord_1", buyer="org_b", need_id="need_1", feeder="fdr_1", direction=Direction.UP,
    kw=Kw(6.0), interval=HALF_HOUR,
)  # fmt: skip


def contract(name: str, kw: float, price: str, **changes: object) -> Contract:
    base = Contract(
        id=name, need_id="need_1", bid_id=f"bid_{name}", buyer="org_b", seller=f"org_{name}",
        feeder="fdr_1", direction=Direction.UP, kw=Kw(kw), window=HALF_HOUR,
        utilisation_price=Decimal(price), currency="GBP", assets=("ast",),
        measurement_point=MeasurementPoint.DEVICE, baseline="zero", terms="utilisation",
        signed_by=("org_b", f"org_{name}"),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def device(name: str, most_kw: float, **changes: object) -> DeviceState:
    profile = DeviceProfile(
        device_id=name, protocol="mqtt", min_kw=Kw(-5.0), max_kw=Kw(most_kw),
        lease=LeaseKind.TIME_TO_LIVE, lease_s=60.0,
    )  # fmt: skip
    return msgspec.structs.replace(DeviceState(profile=profile, reference_kw=Kw(0.0)), **changes)


def test_it_says_who_is_called_what_it_costs_and_what_is_left() -> None:
    contracts = [contract("a", 4, "200"), contract("b", 5, "300")]
    fleet = {"a": [device("a1", 5.0)], "b": [device("b1", 1.5), device("b2", 9.0, connected=False)]}
    found = rehearse(ORDER, contracts, {"b": Kw(1.0)}, fleet, "GBP")
    assert found.feasible
    first, second = found.calls
    assert (first.call.contract_id, first.planned_kw, first.cost) == ("a", 4.0, Decimal("0.40"))
    assert (first.headroom_left_kw, first.contract_left_kw) == (1.0, 0.0)
    assert (second.call.kw, second.planned_kw, second.cost) == (2.0, 1.5, Decimal("0.22"))
    assert (second.headroom_left_kw, second.contract_left_kw) == (0.0, 2.0)
    assert (found.shortfall_kw, found.missing_kw, found.cost) == (0.0, 0.5, Decimal("0.62"))
    assert [(each.device_id, each.share_kw) for each in found.allocations] == [
        ("a1", 4.0), ("b1", 1.5),
    ]  # fmt: skip
    assert [(each.device_id, each.reason) for each in found.excluded] == [
        ("b2", "it is not connected")
    ]


def test_without_a_contract_it_says_why() -> None:
    found = rehearse(ORDER, [contract("a", 4, "200", signed_by=())], {}, {}, "GBP")
    assert (found.feasible, found.calls, found.shortfall_kw) == (False, (), 6.0)
    assert "a is not signed by both sides" in found.reason


def test_without_a_device_nothing_is_paid() -> None:
    found = rehearse(ORDER, [contract("a", 9, "200")], {}, {}, "GBP")
    assert (found.feasible, found.missing_kw, found.cost) == (False, 6.0, Decimal("0.00"))
    assert found.reason


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.integers(0, 900)), min_size=1, max_size=5),
    st.lists(st.floats(0.0, 5.0), min_size=5, max_size=5),
    st.floats(0.5, 60.0),
)
def test_it_never_differs_from_the_real_thing(
    offers: list[tuple[float, int]], rooms: list[float], kw: float
) -> None:
    order = msgspec.structs.replace(ORDER, kw=Kw(kw))
    contracts = [contract(f"c{n}", *offer[:1], str(offer[1])) for n, offer in enumerate(offers)]
    fleet = {each.id: [device(f"d{n}", rooms[n])] for n, each in enumerate(contracts)}
    found = rehearse(order, contracts, {}, fleet, "GBP")
    awarded = award(order, contracts, {})
    assert isinstance(awarded, OrderAwarded)
    planned = plan(order, awarded.calls, fleet)
    assert [each.call for each in found.calls] == list(awarded.calls)
    if isinstance(planned, OrderPlanned):
        assert found.allocations == planned.allocations
    assert found.missing_kw == planned.missing_kw
    assert found.cost == sum(each.cost for each in found.calls)
