"""One order from auction to statement, computed by hand.

A need of 25 kW UP, pay as bid, cap 600 per MWh. Bids: a battery fleet 12 kW at 300, a
charging site 10 kW at 180 (divisible from 5 kW), an indivisible 8 kW at 350, one at 950.
By market-rules "Needs, bids, clearing" (greedy) the site is rank 1, the fleet rank 2, the
8 kW do not fit into the 3 kW left, and the 950 is above the cap.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import count

import msgspec
import pytest

from marketplace_core.dispatch.merit_order import award
from marketplace_core.dispatch.order import Order
from marketplace_core.dispatch.planner import DeviceState, plan
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.events import DeliveryVerified, OrderAwarded, OrderPlanned, WindowClosed
from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.bid import Bid
from marketplace_core.procurement.clearing import clear, contracts_from
from marketplace_core.procurement.contract import Contract
from marketplace_core.procurement.need import Need
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.results import BaselineValue
from marketplace_core.settlement.booking import settle
from marketplace_core.units import Direction, Kw
from marketplace_core.verification.delivery import verify

START = instant("2017-07-21T00:00:00Z")
HALF = timedelta(minutes=30)
HOUR = Interval(START, START + 2 * HALF)
NEED = Need(
    id="need_1", buyer="org_dso", feeder="fdr_1", direction=Direction.UP, kw=Kw(25.0),
    window=Interval(START - 4 * HALF, START + 4 * HALF), price_cap=Decimal("600.00"),
    currency="USD",
)  # fmt: skip
NUMBERS = count(1)


def new_id(prefix: str) -> str:
    return f"{prefix}_{next(NUMBERS):03d}"


def bid(name: str, kw: float, price: str, *, divisible: bool, min_kw: float = 0.0) -> Bid:
    return Bid(
        id=f"bid_{name}", need_id="need_1", seller=f"org_{name}", assets=(f"ast_{name}",),
        kw=Kw(kw), utilisation_price=Decimal(price), divisible=divisible, min_kw=Kw(min_kw),
    )  # fmt: skip


BIDS = (
    bid("fleet", 12, "300.00", divisible=False),
    bid("site", 10, "180.00", divisible=True, min_kw=5),
    bid("late", 8, "350.00", divisible=False),
    bid("dear", 10, "950.00", divisible=True),
)


def contracts() -> tuple[Contract, ...]:
    assets = {
        each.assets[0]: Asset(
            id=each.assets[0], organisation=each.seller, feeder="fdr_1", technology="any",
            devices=("dev",), meter="mtr", measurement_point=MeasurementPoint.SITE_NET,
            up_kw=each.kw,
        )
        for each in BIDS
    }  # fmt: skip
    offered = contracts_from(NEED, clear(NEED, BIDS), BIDS, assets, new_id)
    return tuple(
        msgspec.structs.replace(each, signed_by=(each.buyer, each.seller)) for each in offered
    )


def test_the_auction_clears_as_by_hand() -> None:
    clearing = clear(NEED, BIDS)
    assert [(each.bid_id, each.kw, each.reason) for each in clearing.awards] == [
        ("bid_site", 10.0, "accepted in full at rank 1"),
        ("bid_fleet", 12.0, "accepted in full at rank 2"),
        ("bid_late", 0.0, "rejected: indivisible 8 kW does not fit into the remaining 3 kW"),
        ("bid_dear", 0.0, "rejected: asked 950.00 above the price cap 600.00 USD per MWh"),
    ]
    assert clearing.unmet_kw == 3.0


def test_the_order_is_delivered_verified_and_settled_as_by_hand() -> None:
    site, fleet = contracts()
    order = Order(
        id="ord_1", buyer="org_dso", need_id="need_1", feeder="fdr_1", direction=Direction.UP,
        kw=Kw(16.0), interval=HOUR,
    )  # fmt: skip
    awarded = award(order, [fleet, site], {})
    assert isinstance(awarded, OrderAwarded)
    # The site is cheaper and gives its 10 kW, the fleet the other 6.
    assert [(each.contract_id, each.kw) for each in awarded.calls] == [
        (site.id, 10.0), (fleet.id, 6.0),
    ]  # fmt: skip
    planned = plan(order, awarded.calls, {site.id: [_site()], fleet.id: _batteries()})
    assert isinstance(planned, OrderPlanned)
    # The site can only drop its 9 kW: 1 kW is missing. The batteries have 5 kW each.
    assert [each.power_kw for each in planned.allocations] == pytest.approx([0.0, 3.0, 3.0])
    assert planned.missing_kw == pytest.approx(1.0)
    deliveries = [
        # Site: baseline -9.5, measured -0.5 then -4.5: 9 kW and 5 kW for half an hour.
        _delivered(site, 10.0, 0, measured=-0.5, baseline=-9.5),
        _delivered(site, 10.0, 1, measured=-4.5, baseline=-9.5),
        # Fleet: baseline 0.2, measured 7.2 then 6.2: 7 kW and 6 kW where 6 were asked.
        _delivered(fleet, 6.0, 0, measured=7.2, baseline=0.2),
        _delivered(fleet, 6.0, 1, measured=6.2, baseline=0.2),
    ]
    assert [each.delivered_kwh for each in deliveries] == pytest.approx([4.5, 2.5, 3.5, 3.0])
    settled = settle(order, {site.id: site, fleet.id: fleet}, deliveries, version=1, new_id=new_id)
    # market-rules "Utilisation": min(delivered, instructed) x price. Site 4.5 + 2.5 = 7 kWh
    # at 0.18 = 1.26; fleet 3 + 3 = 6 kWh at 0.30 = 1.80.
    assert {line.seller: (line.quantity, line.amount) for line in settled.lines} == {
        "org_site": (Decimal("7.000"), Decimal("1.26")),
        "org_fleet": (Decimal("6.000"), Decimal("1.80")),
    }


def _site() -> DeviceState:
    profile = DeviceProfile(
        device_id="dev_site", protocol="openadr", min_kw=Kw(-30.0), max_kw=Kw(0.0),
        control=ControlKind.LIMIT, lease=LeaseKind.EVENT_END,
    )  # fmt: skip
    return DeviceState(profile=profile, reference_kw=Kw(-9.0))


def _batteries() -> list[DeviceState]:
    return [
        DeviceState(
            profile=DeviceProfile(
                device_id=f"dev_{number}", protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0),
                lease=LeaseKind.REVERT_TIMER, lease_s=60.0,
            ),
            reference_kw=Kw(0.0),
        )
        for number in range(2)
    ]  # fmt: skip


def _delivered(
    contract: Contract, called_kw: float, index: int, *, measured: float, baseline: float
) -> DeliveryVerified:
    window = WindowClosed(
        order_id="ord_1", contract_id=contract.id,
        period=Interval(START + index * HALF, START + (index + 1) * HALF), version=1,
        instructed_kw=Kw(called_kw), measured_kw=Kw(measured), coverage=1.0, gaps=0,
        series=("mtr",),
    )  # fmt: skip
    values = BaselineValue(kw=(Kw(baseline), Kw(baseline)), days=(), adjustment=1.0)
    return verify(window, contract, values, index)
