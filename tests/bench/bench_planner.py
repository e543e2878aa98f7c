"""Allocation of one order over 100,000 devices, beside the same in plain Python loops.

`planner_100k`: the kernel, from columns to shares and who is left out, in proportion to room,
over batteries with stored energy, chargers with deadlines and a last resort, one in ten of
them out of reach. `planner_100k_limits`: equal shares, with ramps and minimum power besides.
`plan_call_100k`: the whole `plan()`, from device states to the fact that is journalled. What
both sides say is compared before it is timed. The last rows are times per device, beside
those of the smallest fleet: a ratio of 1 is linear growth. The kernel grows from 100,000
devices to 1,600,000, the whole plan up to 100,000. All times are the processor's.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from marketplace_core.dispatch.bounds import (
    NEGLIGIBLE_KW,
    DeviceState,
    headroom,
    unusable,
    within_deadline,
)
from marketplace_core.dispatch.columns import Columns, Division, columns_of, divide_columns
from marketplace_core.dispatch.order import Allocation, Call, Exclusion, Order
from marketplace_core.dispatch.planner import plan
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.dispatch.sharing import Fairness
from marketplace_core.dispatch.stretches import IntArray
from marketplace_core.events import OrderPlanned
from marketplace_core.intervals import Interval, instant
from marketplace_core.units import Direction, Kw, Kwh
from tests.harness.plain_sharing import Device, divide

DEVICES = 100_000
PART = 0.97
"""Target as a part of all the room: more than the first tier has."""
START = instant("2026-11-24T17:00:00Z")
SPAN = Interval(START, START + timedelta(hours=1))


def state(number: int, chance: random.Random, *, limits: bool) -> DeviceState:
    """A battery, a charger with a car, or an inverter that is a last resort."""
    charger, inverter = number % 3 == 1, number % 12 == 2
    low, high = (-7.0, 0.0) if charger else (0.0, 5.0) if inverter else (-5.0, 5.0)
    battery = not charger and not inverter
    profile = DeviceProfile(
        device_id=f"dev-{number:06d}", protocol="mqtt", min_kw=Kw(low), max_kw=Kw(high),
        control=ControlKind.LIMIT if charger else ControlKind.SETPOINT,
        lease=LeaseKind.TIME_TO_LIVE, lease_s=900.0, tier=int(inverter),
        capacity_kwh=Kwh(10.0) if battery else None,
        ramp_kw_per_s=chance.uniform(0.01, 0.2) if limits and battery else None,
        min_on_kw=Kw(1.4) if limits and charger else Kw(0.0),
    )  # fmt: skip
    return DeviceState(
        profile=profile,
        reference_kw=Kw(chance.uniform(low, high)),
        soc_kwh=chance.uniform(0.0, 10.0) if battery else None,
        connected=number % 10 != 0,
        wanted_kwh=chance.uniform(0.0, 20.0) if charger else None,
        leaves_at=START + timedelta(minutes=chance.uniform(30, 600)) if charger else None,
    )


def rows_of(columns: Columns) -> list[Device]:
    """The same columns as rows of Python numbers."""
    lists = {
        name: [None if value != value else value for value in column.tolist()]  # noqa: PLR0124 - nan
        for name, column in columns._asdict().items()
    }
    return [
        Device(**dict(zip(lists, row, strict=True))) for row in zip(*lists.values(), strict=True)
    ]  # fmt: skip


def run(runs: int) -> list[dict[str, Any]]:
    """Medians of `runs` allocations each."""
    chance = random.Random(7)
    fleet = [state(number, chance, limits=False) for number in range(DEVICES)]
    limited = [state(number, chance, limits=True) for number in range(DEVICES)]
    rows = [
        _row("planner_100k", *_kernel(fleet, Fairness.PROPORTIONAL, runs), "s", runs),
        _row("planner_100k_limits", *_kernel(limited, Fairness.EQUAL, runs), "s", runs),
        _row("plan_call_100k", *_whole(fleet, runs), "s", runs),
    ]
    columns = columns_of(fleet, SPAN)
    rows += _growth("planner", DEVICES, lambda n: _kernel_call(columns, n // DEVICES), runs)
    rows += _growth("plan_call", DEVICES // 16, lambda n: _whole_call(fleet[:n]), runs)
    return rows


def _kernel(fleet: list[DeviceState], fairness: Fairness, runs: int) -> tuple[float, float]:
    columns = columns_of(fleet, SPAN)
    plain = rows_of(columns)
    target = _target(columns)

    def ours() -> tuple[Division, IntArray]:
        found = divide_columns(target, columns, Direction.UP, SPAN.hours, fairness=fairness)
        return found, np.flatnonzero(~found.able)

    def reference() -> list[float]:
        return divide(target, plain, 1, SPAN.hours, fairness.value)

    found, left_out = ours()
    assert len(left_out) >= len(fleet) // 10
    assert np.allclose(found.share_kw, reference(), rtol=0, atol=1e-6)
    return _median(ours, runs), _median(reference, runs)


def _growth(
    name: str, smallest: int, fleet_of: Callable[[int], Callable[[], object]], runs: int
) -> list[dict[str, Any]]:
    """Microseconds per device at once, four and sixteen times the smallest fleet."""
    spent = {
        factor: 1e6 * _median(fleet_of(smallest * factor), runs) / (smallest * factor)
        for factor in (1, 4, 16)
    }
    return [
        _row(f"{name}_growth_{factor}x", each, spent[1], "us/device", runs)
        for factor, each in spent.items()
    ]


def _kernel_call(columns: Columns, times: int) -> Callable[[], object]:
    fleet = Columns._make(np.tile(column, times) for column in columns)
    target = _target(fleet)
    return lambda: divide_columns(target, fleet, Direction.UP, SPAN.hours)


def _target(columns: Columns) -> float:
    return PART * float(divide_columns(0.0, columns, Direction.UP, SPAN.hours).room_kw.sum())


def _order(fleet: list[DeviceState]) -> tuple[Order, Call]:
    kw = Kw(_target(columns_of(fleet, SPAN)))
    order = Order(
        id="ord_1", buyer="org_b", need_id="need_1", feeder="F", direction=Direction.UP, kw=kw,
        interval=SPAN,
    )  # fmt: skip
    return order, Call(contract_id="ctr_1", seller="org_s", kw=kw, price=Decimal(100))


def _whole_call(fleet: list[DeviceState]) -> Callable[[], object]:
    order, call = _order(fleet)
    return lambda: plan(order, [call], {"ctr_1": fleet})


def _whole(fleet: list[DeviceState], runs: int) -> tuple[float, float]:
    order, call = _order(fleet)

    def ours() -> OrderPlanned:
        found = plan(order, [call], {"ctr_1": fleet})
        assert isinstance(found, OrderPlanned)
        return found

    def reference() -> tuple[list[Allocation], list[Exclusion]]:
        return _plain_plan(order, call, fleet)

    allocations, excluded = reference()
    found = ours()
    assert list(found.excluded) == excluded
    assert [each.device_id for each in found.allocations] == [a.device_id for a in allocations]
    for each, plain in zip(found.allocations, allocations, strict=True):
        assert abs(each.share_kw - plain.share_kw) < 1e-9
        assert abs(each.power_kw - plain.power_kw) < 1e-9
    return _median(ours, runs), _median(reference, runs)


def _plain_plan(
    order: Order, call: Call, fleet: list[DeviceState]
) -> tuple[list[Allocation], list[Exclusion]]:
    """One device after the other: bounds, then shares by tier, then setpoints."""
    hours, sign = order.interval.hours, order.direction.sign
    excluded: list[Exclusion] = []
    rooms: dict[int, list[tuple[DeviceState, float]]] = {}
    for each in fleet:
        device = within_deadline(each, order.interval)
        reason = unusable(device)
        if not reason:
            room = headroom(device, order.direction, hours)
            if room >= NEGLIGIBLE_KW:
                rooms.setdefault(device.profile.tier, []).append((device, room))
                continue
            reason = f"it has no room {order.direction.value} from {device.reference_kw:.3f} kW"
            if device.soc_kwh is not None:
                reason = f"{reason} with {device.soc_kwh:.2f} kWh stored"
        excluded.append(Exclusion(device_id=device.profile.device_id, reason=reason))
    shares: dict[str, Allocation] = {}
    left = float(call.kw)
    for tier in sorted(rooms):
        total = sum(room for _, room in rooms[tier])
        part = min(1.0, left / total)
        for device, room in rooms[tier]:
            share, reference = room * part, device.reference_kw or 0.0
            left -= share
            if share >= NEGLIGIBLE_KW or tier == 0:
                power = min(max(reference + sign * share, device.profile.min_kw),
                            device.profile.max_kw)  # fmt: skip
                shares[device.profile.device_id] = Allocation(
                    device_id=device.profile.device_id, contract_id=call.contract_id,
                    share_kw=Kw(share), reference_kw=Kw(reference), power_kw=Kw(power),
                )  # fmt: skip
        left = max(0.0, left)
    known = (shares.get(each.profile.device_id) for each in fleet)
    return [each for each in known if each is not None], excluded


def _median(call: Callable[[], object], runs: int) -> float:
    """Processor seconds: nothing in here waits, and neighbours on the machine do not count."""
    times = []
    for _ in range(runs):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return statistics.median(times)


def _row(name: str, ours: float, reference: float, unit: str, runs: int) -> dict[str, Any]:
    return {
        "name": name, "ours": ours, "reference": reference, "ratio": ours / reference,
        "unit": unit, "runs": runs,
    }  # fmt: skip
