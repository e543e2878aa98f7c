"""One walk over the calls of an order: who serves which, who is left out, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from marketplace_core.dispatch.bounds import NEGLIGIBLE_KW, DeviceState, PlanningRule, unusable
from marketplace_core.dispatch.columns import (
    BoolArray,
    Columns,
    Division,
    columns_of,
    divide_columns,
    powers_of,
)
from marketplace_core.dispatch.order import Allocation, Call, Exclusion, Order
from marketplace_core.dispatch.others import Others
from marketplace_core.dispatch.sharing import Sharing
from marketplace_core.dispatch.stretches import FloatArray, IntArray
from marketplace_core.events import OrderInfeasible, OrderPlanned
from marketplace_core.units import Kw


class Fleet(NamedTuple):
    """Devices of one contract beside their columns."""

    devices: Sequence[DeviceState]
    ids: Sequence[str]
    columns: Columns

    def of(self, rows: Sequence[int]) -> Fleet:
        """Some of them only."""
        if len(rows) == len(self.ids):
            return self
        devices, ids = self.devices, self.ids
        return Fleet(
            [devices[row] for row in rows], [ids[row] for row in rows],
            self.columns.of(np.array(rows, np.int64)),
        )  # fmt: skip


class Walk:
    """What one walk over the calls has decided so far."""

    def __init__(
        self,
        order: Order,
        rule: PlanningRule,
        others: Others,
        sharing: Sharing,
        before: Mapping[str, Allocation],
    ) -> None:
        self.order = order
        self.rule = rule
        self.others = others
        self.sharing = sharing
        self.before = before
        own = {name: each.reference_kw for name, each in before.items()}
        self.references: Mapping[str, Kw] = {**own, **others.references}
        self.allocations: list[Allocation] = []
        self.excluded: list[Exclusion] = []
        self.missing = 0.0
        self._taken: dict[str, str] = {}
        self._known = 0

    def fleet(self, devices: Sequence[DeviceState]) -> Fleet:
        """The devices of one call, by what they would do by themselves."""
        ids = [each.profile.device_id for each in devices]
        return Fleet(devices, ids, columns_of(devices, self.order.interval, self.references))

    def serve(self, call: Call, fleet: Fleet, target_kw: float) -> None:
        """Share a target over the usable devices of one call."""
        fleet, taken = self._set_apart(fleet)
        division = self._divide(fleet, target_kw)
        self.missing += division.missing_kw
        idle = division.able & (division.share_kw < NEGLIGIBLE_KW) & self._spared(fleet)
        out = ~division.able
        if division.missing_kw >= NEGLIGIBLE_KW:
            out |= idle  # what could give more and does not cannot give that little
        self._leave_out(fleet, np.flatnonzero(out), division, taken)
        self.keep(_allocations(self.order, call, fleet, np.flatnonzero(~out & ~idle), division))

    def keep(self, allocations: Iterable[Allocation]) -> None:
        """Take allocations into the plan; their devices serve no other call."""
        self.allocations += allocations

    @property
    def taken(self) -> Mapping[str, str]:
        """Which contract each device of the plan serves."""
        new = self.allocations[self._known :]
        self._taken.update((each.device_id, each.contract_id) for each in new)
        self._known = len(self.allocations)
        return self._taken

    def outcome(self) -> OrderPlanned | OrderInfeasible:
        """The fact that the walk ends in."""
        order = self.order
        if not self.allocations:
            return OrderInfeasible(
                order_id=order.id, revision=order.revision, missing_kw=Kw(self.missing),
                excluded=tuple(self.excluded),
            )  # fmt: skip
        return OrderPlanned(
            order_id=order.id,
            revision=order.revision,
            interval=order.interval,
            allocations=tuple(self.allocations),
            missing_kw=Kw(self.missing if self.missing >= NEGLIGIBLE_KW else 0.0),
            excluded=tuple(self.excluded),
        )

    def _divide(self, fleet: Fleet, target_kw: float) -> Division:
        order, sharing = self.order, self.sharing
        return divide_columns(
            target_kw,
            fleet.columns,
            order.direction,
            order.interval.hours,
            fairness=sharing.fairness,
            weight=_named(fleet.ids, sharing.weights, 1.0),
            rank=_named(fleet.ids, sharing.ranks, 0.0),
            rule=self.rule,
        )

    def _spared(self, fleet: Fleet) -> BoolArray:
        """Which devices are left alone when nothing is asked of them.

        Those are a last resort, what cannot run at any power, and what is not meant to serve
        each time; but a device that the plan in force drives has to be told.
        """
        columns = fleet.columns
        spared = np.full(len(fleet.ids), fill_value=True)
        if self.sharing.all_serve:
            spared = (columns.tier > 0) | (columns.min_on_kw > 0)
        if self.before:
            spared &= np.array([name not in self.before for name in fleet.ids], np.bool_)
        return spared

    def _set_apart(self, fleet: Fleet) -> tuple[Fleet, dict[int, str]]:
        """The fleet with each device once, and why some are taken, by row."""
        taken, elsewhere = self.taken, self.others.taken
        if taken or elsewhere:
            usable = fleet.columns.usable.copy()
            usable[[id_ in taken or id_ in elsewhere for id_ in fleet.ids]] = False
            fleet = fleet._replace(columns=fleet.columns._replace(usable=usable))
        if len(set(fleet.ids)) < len(fleet.ids):
            fleet = fleet.of(self._once(fleet))
        reasons: dict[int, str] = {}
        for row, device_id in enumerate(fleet.ids) if taken or elsewhere else ():
            if device_id in taken:
                reasons[row] = f"it already serves contract {taken[device_id]}"
            elif device_id in elsewhere:
                reasons[row] = "it already serves another order"  # whose is nobody's business
        return fleet, reasons

    def _once(self, fleet: Fleet) -> list[int]:
        """Rows without those listed twice: two assets of the contract name one device."""
        able = self._divide(fleet, 0.0).able.tolist()
        rows: list[int] = []
        serving: set[str] = set()
        for row, device_id in enumerate(fleet.ids):
            if device_id not in serving:
                rows.append(row)
                if able[row]:
                    serving.add(device_id)
        return rows

    def _leave_out(
        self, fleet: Fleet, rows: IntArray, division: Division, taken: Mapping[int, str]
    ) -> None:
        columns = fleet.columns
        found = zip(
            rows.tolist(), columns.usable[rows].tolist(), columns.reference_kw[rows].tolist(),
            division.room_kw[rows].tolist(), division.able[rows].tolist(),
            strict=True,
        )  # fmt: skip
        for row, usable, reference, room, able in found:
            device, min_on = fleet.devices[row], fleet.devices[row].profile.min_on_kw
            if row in taken:
                reason = taken[row]
            elif not usable:
                reason = unusable(self._referred(device) if self.references else device)
            elif able:
                reason = f"it cannot give as little as lacks: it runs at {min_on:.3f} kW or more"
            else:
                reason = f"it has no room {self.order.direction.value} from {reference:.3f} kW"
                if device.soc_kwh is not None:
                    reason = f"{reason} with {device.soc_kwh:.2f} kWh stored"
                if room >= NEGLIGIBLE_KW:
                    reason = f"{reason}: below {min_on:.3f} kW it does not run"
            self.excluded.append(Exclusion(device_id=fleet.ids[row], reason=reason))

    def _referred(self, device: DeviceState) -> DeviceState:
        known = self.references.get(device.profile.device_id)
        return device if known is None else msgspec.structs.replace(device, reference_kw=known)


def _named(ids: Sequence[str], values: Mapping[str, float], other: float) -> FloatArray | None:
    if not values:
        return None
    return np.array([values.get(device_id, other) for device_id in ids], np.float64)


def _allocations(
    order: Order, call: Call, fleet: Fleet, rows: IntArray, division: Division
) -> list[Allocation]:
    contract_id, ids, columns = call.contract_id, fleet.ids, fleet.columns
    powers = powers_of(columns, order.direction, division.share_kw)
    return [
        Allocation(
            device_id=ids[row],
            contract_id=contract_id,
            share_kw=share,
            reference_kw=reference,
            power_kw=power,
        )
        for row, share, reference, power in zip(
            rows.tolist(), division.share_kw[rows].tolist(), columns.reference_kw[rows].tolist(),
            powers[rows].tolist(), strict=True,
        )
    ]  # fmt: skip
