"""Plan: whose share is how large, by the setting that says what is fair."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from sqlalchemy import Engine, insert

from gateway.live import LiveState
from gateway.stages.plan import Plan
from gateway.store.journal import read_streams
from gateway.store.market import add_order, to_json
from gateway.store.registry import save_assets
from gateway.store.setpoints import SetpointState, add_setpoints, set_states
from gateway.store.tables import contracts
from gateway.store.writer import Transaction, Writer
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.dispatch.order import Call
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.dispatch.sharing import Fairness
from marketplace_core.events import OrderAwarded, OrderPlanned
from marketplace_core.ports import Record
from marketplace_core.procurement.contract import Contract
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.units import Direction, Kw
from marketplace_core.verification.reading import Reading
from tests.harness.clocks import SteppingClock
from tests.harness.running_order import CONTRACT_ID, ORDER_ID, SPAN, START, order

NAMES = ("a", "b", "c")


class Clock(SteppingClock):
    """Stands at the order's start."""

    def now(self) -> datetime:
        return START


def profile(name: str, weight: float, rank: float) -> DeviceProfile:
    return DeviceProfile(
        device_id=name, protocol="mqtt", min_kw=Kw(-8.0), max_kw=Kw(0.0), weight=weight, rank=rank,
        lease=LeaseKind.TIME_TO_LIVE, lease_s=900.0, telemetry_s=86_400.0,
    )  # fmt: skip


def asset(name: str) -> Asset:
    return Asset(
        id=f"ast-{name}", organisation="org_s", feeder="F-1", technology="ev_charger",
        devices=(name,), meter=name, measurement_point=MeasurementPoint.DEVICE, up_kw=Kw(8.0),
    )  # fmt: skip


def contract() -> Contract:
    return Contract(
        id=CONTRACT_ID, need_id="nd_1", bid_id="bid_1", buyer="org_buyer", seller="org_s",
        feeder="F-1", direction=Direction.UP, kw=Kw(6.0), window=SPAN,
        utilisation_price=Decimal(100), currency="USD", assets=tuple(f"ast-{n}" for n in NAMES),
        measurement_point=MeasurementPoint.DEVICE, baseline="b", terms="t",
    )  # fmt: skip


def used(name: str, order_id: str, hours: float, days_ago: float) -> Setpoint:
    begin = START - timedelta(days=days_ago)
    return Setpoint(
        id=f"{name}-{order_id}", order_id=order_id, revision=0, device_id=name, power_kw=Kw(-1.0),
        valid_from=begin, valid_until=begin + timedelta(hours=hours), lease_s=900.0,
    )  # fmt: skip


async def shares(
    engine: Engine, writer: Writer, stage: Plan, past: Iterable[Setpoint] = ()
) -> dict[str, float]:
    """Share of each device of an order over 6 kW."""
    call = Call(contract_id=CONTRACT_ID, seller="org_s", kw=Kw(6.0), price=Decimal(100))
    awarded = OrderAwarded(order_id=ORDER_ID, calls=(call,), shortfall_kw=Kw(0.0))
    past = list(past)

    def work(tx: Transaction) -> None:
        save_assets(tx.connection, [asset(name) for name in NAMES])
        row = {"id": CONTRACT_ID, "need_id": "nd_1", "buyer": "org_buyer", "seller": "org_s"}
        tx.connection.execute(insert(contracts).values(**row, document=to_json(contract())))
        add_order(tx.connection, msgspec.structs.replace(order(), kw=Kw(6.0)), OrderState.AWARDED)
        add_setpoints(tx.connection, past)
        set_states(tx.connection, [each.id for each in past], SetpointState.RELEASED)
        stage.handle(Record(shard=0, sequence=1, at=START, stream=ORDER_ID, fact=awarded), tx)

    await writer.transact(work)
    with engine.connect() as connection:
        facts = [each.fact for each in read_streams(connection, [ORDER_ID])]
    (planned,) = [each for each in facts if isinstance(each, OrderPlanned)]
    return {each.device_id: each.share_kw for each in planned.allocations}


def live(weights: Iterable[float] = (1.0,) * 3, ranks: Iterable[float] = (0.0,) * 3) -> LiveState:
    """Three chargers that take 8, 8 and 4 kW."""
    made = {
        name: profile(name, weight, rank)
        for name, weight, rank in zip(NAMES, weights, ranks, strict=True)
    }
    state = LiveState(made, Clock())
    state.update(
        Reading(series=name, start=START - timedelta(minutes=1), seconds=60.0, power_kw=Kw(-kw))
        for name, kw in zip(NAMES, (8.0, 8.0, 4.0), strict=True)
    )
    return state


async def test_shares_are_in_proportion_to_room_unless_somebody_says_otherwise(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    found = await shares(engine, start_writer(), Plan(live()))
    assert found == {"a": pytest.approx(2.4), "b": pytest.approx(2.4), "c": pytest.approx(1.2)}


async def test_a_weight_moves_power_from_one_device_to_another(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    stage = Plan(live(weights=(2.0, 1.0, 1.0)), Fairness.EQUAL)
    found = await shares(engine, start_writer(), stage)
    assert found == {"a": pytest.approx(3.0), "b": pytest.approx(1.5), "c": pytest.approx(1.5)}


async def test_the_lowest_rank_serves_first(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    stage = Plan(live(ranks=(3.0, 2.0, 1.0)), Fairness.PRIORITY)
    found = await shares(engine, start_writer(), stage)
    assert found == {"b": pytest.approx(2.0), "c": pytest.approx(4.0)}


async def test_the_least_used_serves_first_and_what_is_long_ago_or_its_own_does_not_count(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    past = [
        used("a", "ord_8", hours=1.0, days_ago=2.0), used("a", "ord_9", hours=2.0, days_ago=1.0),
        used("b", "ord_8", hours=2.0, days_ago=2.0), used("c", "ord_0", hours=9.0, days_ago=40.0),
        used("b", ORDER_ID, hours=9.0, days_ago=0.0),
    ]  # fmt: skip
    stage = Plan(live(), Fairness.ROTATE)
    found = await shares(engine, start_writer(), stage, past)
    assert found == {"b": pytest.approx(2.0), "c": pytest.approx(4.0)}
