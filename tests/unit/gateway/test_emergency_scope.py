"""Whose setpoints and orders an emergency stop may end, by scope and by who asks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from gateway.emergency import Emergency, Scope
from gateway.store.market import add_order
from gateway.store.registry import save_assets
from gateway.store.viewer import Viewer
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.dispatch.order import Order
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.errors import RequestError
from marketplace_core.intervals import Interval
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.units import Direction, Kw
from tests.unit.gateway.conftest import SteppingClock

OPERATOR = Viewer("org_o", everything=True)


def order(name: str, buyer: str, feeder: str, clock: SteppingClock) -> Order:
    span = Interval(clock.at, clock.at + timedelta(hours=1))
    return Order(
        id=name, buyer=buyer, need_id="need", feeder=feeder, direction=Direction.UP, kw=Kw(1.0),
        interval=span,
    )  # fmt: skip


def setpoint(order_id: str, device: str, clock: SteppingClock) -> Setpoint:
    return Setpoint(
        id=f"{order_id}/{device}", order_id=order_id, revision=0, device_id=device,
        power_kw=Kw(1.0), valid_from=clock.at, valid_until=clock.at + timedelta(hours=1),
        lease_s=60.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "scope", [Scope(kind="feeder", id="F-NOPE"), Scope(kind="organisation", id="org_nope")]
)
def test_a_scope_that_nobody_knows_is_refused(engine: Engine, scope: Scope) -> None:
    clock = SteppingClock()
    emergency = Emergency(
        None,
        writer=None,
        clock=clock,
        new_id=str,
        halt=lambda *_: None,  # type: ignore[arg-type]
    )
    with engine.connect() as connection, pytest.raises(RequestError, match="nothing was stopped"):
        emergency.concerned(connection, OPERATOR, scope, [])


@pytest.mark.parametrize(
    ("viewer", "scope", "setpoints", "orders"),
    [
        (OPERATOR, Scope(kind="all"), "A/s1 A/t1 B/s1 C/s2", "A B C D"),
        (OPERATOR, Scope(kind="feeder", id="F-1"), "A/s1 A/t1 B/s1", "A B D"),
        (OPERATOR, Scope(kind="organisation", id="org_b"), "A/s1 A/t1 C/s2", "A C D"),
        # A seller's devices alone: the order that others serve too goes on.
        (OPERATOR, Scope(kind="organisation", id="org_s"), "A/s1 B/s1 C/s2", "B C"),
        (Viewer("org_b"), Scope(kind="all"), "A/s1 A/t1 C/s2", "A C D"),
        (Viewer("org_b"), Scope(kind="feeder", id="F-2"), "C/s2", "C"),
        (Viewer("org_b"), Scope(kind="organisation", id="org_s"), "A/s1 C/s2", "C"),
        # A seller ends no order: what it does not deliver it owes.
        (Viewer("org_s"), Scope(kind="all"), "A/s1 B/s1 C/s2", ""),
        (Viewer("org_t"), Scope(kind="organisation", id="org_s"), "", ""),
        (Viewer("org_x"), Scope(kind="all"), "", ""),
    ],
)
def test_everybody_stops_what_is_its_own(
    engine: Engine, viewer: Viewer, scope: Scope, setpoints: str, orders: str
) -> None:
    clock = SteppingClock()
    standing = [setpoint("A", "s1", clock), setpoint("A", "t1", clock),
                setpoint("B", "s1", clock), setpoint("C", "s2", clock)]  # fmt: skip
    emergency = Emergency(
        None, writer=None, clock=clock, new_id=str, halt=lambda *_: None,  # type: ignore[arg-type]
    )  # fmt: skip
    with engine.begin() as connection:
        for name, buyer, feeder in (("A", "org_b", "F-1"), ("B", "org_c", "F-1"),
                                    ("C", "org_b", "F-2"), ("D", "org_b", "F-1")):  # fmt: skip
            add_order(connection, order(name, buyer, feeder, clock), OrderState.PLANNED)
        save_assets(connection, [
            Asset(id=f"ast-{device}", organisation=owner, feeder="F-1", technology="any",
                  devices=(device,), meter=device, measurement_point=MeasurementPoint.DEVICE)
            for device, owner in (("s1", "org_s"), ("s2", "org_s"), ("t1", "org_t"))
        ])  # fmt: skip
        chosen, ended = emergency.concerned(connection, viewer, scope, standing)
    assert " ".join(sorted(each.id for each in chosen)) == setpoints
    assert " ".join(sorted(each.id for each in ended)) == orders
