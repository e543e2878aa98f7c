"""A fleet as columns: what `bounds` says of one device, for all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from marketplace_core.dispatch.bounds import NEGLIGIBLE_KW, PLANNING, DeviceState, PlanningRule
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.dispatch.sharing import Claims, Fairness, divide
from marketplace_core.dispatch.stretches import (
    FloatArray,
    IntArray,
    stretches_of,
)
from marketplace_core.intervals import Interval
from marketplace_core.units import Direction, Kw

BoolArray = npt.NDArray[np.bool_]

_NAN: Final = float("nan")
_AT_ONCE: Final = 2048
"""Devices whose objects are gone through together, column by column: as many as stay in the
processor's cache meanwhile."""
_ROWS_AT_ONCE: Final = 8192
"""The same for arithmetic on columns: what comes in between is small and soon used again."""
_HAIR_KW: Final = 1e-6
_NONE: Final = LeaseKind.NONE
_LIMIT: Final = ControlKind.LIMIT


class Columns(NamedTuple):
    """A fleet; every column has shape (n,), and nan where a device has no such thing."""

    min_kw: FloatArray
    max_kw: FloatArray
    reference_kw: FloatArray
    limit: BoolArray
    """Whether it takes a limit rather than a setpoint."""
    capacity_kwh: FloatArray
    soc_kwh: FloatArray
    least_kwh: FloatArray
    """Energy that a load with a deadline has to take within the span; see `within_deadline`."""
    most_kwh: FloatArray
    """Energy that it takes at most."""
    ramp_kw_per_s: FloatArray
    min_on_kw: FloatArray
    """0 where it can run at any power."""
    tier: IntArray
    usable: BoolArray
    """False where `unusable` has a reason."""

    def of(self, rows: IntArray) -> Columns:
        """The same for some devices only."""
        return Columns._make(column[rows] for column in self)


class Division(NamedTuple):
    """What a target became; shapes (n,)."""

    room_kw: FloatArray
    """What each device could hold if it could run at any power; 0 where it cannot be used."""
    able: BoolArray
    """Whether it can hold a watt or more."""
    share_kw: FloatArray
    missing_kw: float
    """`target - share_kw.sum()`, 0 at least."""


def columns_of(
    devices: Sequence[DeviceState], span: Interval, references: Mapping[str, Kw] | None = None
) -> Columns:
    """The columns of a fleet, for an order over `span`.

    `references` replaces what devices measure now by what they would do by themselves.
    """
    known = references or {}
    if len(devices) <= _AT_ONCE:
        return _columns(devices, span, known)
    parts = [
        _columns(devices[start : start + _AT_ONCE], span, known)
        for start in range(0, len(devices), _AT_ONCE)
    ]
    return Columns._make(np.concatenate(column) for column in zip(*parts, strict=True))


def room_of(
    columns: Columns, direction: Direction, hours: float, rule: PlanningRule = PLANNING
) -> FloatArray:
    """Flexibility in kW that each device could hold for `hours` if it could run at any power.

    Shape (n,); 0 where a device cannot be used.
    """
    room = np.empty(len(columns.usable))
    for start in range(0, len(room), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        part = Columns._make(column[rows] for column in columns)
        able = (_up if direction is Direction.UP else _down)(part, hours, rule)
        able = np.fmin(able, part.ramp_kw_per_s * rule.ramp_s)
        room[rows] = np.fmax(0.0, able) * part.usable
    return room


def divide_columns(
    target_kw: float,
    columns: Columns,
    direction: Direction,
    hours: float,
    *,
    fairness: Fairness = Fairness.PROPORTIONAL,
    weight: FloatArray | None = None,
    rank: FloatArray | None = None,
    rule: PlanningRule = PLANNING,
) -> Division:
    """Share a target over a fleet for `hours`, within every bound of each device.

    Bounds are rating, kind of control, stored energy, departure, ramp and minimum power. What
    the shares guarantee is said at `divide`. A device with less room than a watt is left alone.
    `weight` and `rank` are those of `Claims`; raises ValueError as `divide` does.
    """
    room = room_of(columns, direction, hours, rule)
    stretches = stretches_of(room, direction.sign * columns.reference_kw, columns.min_on_kw)
    able = stretches.top >= NEGLIGIBLE_KW
    claims = Claims(columns.tier, weight, rank)
    rows = np.flatnonzero(able)
    given = divide(target_kw, stretches.of(rows), claims.of(rows), fairness)
    shares = np.zeros(len(room))
    shares[rows] = given
    return Division(room, able, shares, max(0.0, target_kw - float(given.sum())))


def powers_of(columns: Columns, direction: Direction, share_kw: FloatArray) -> FloatArray:
    """The absolute setpoint of each device that gives a share; shape (n,).

    A meter may report a little more than the device's rating: the command never does.
    """
    power = columns.reference_kw + direction.sign * share_kw
    if columns.min_on_kw.any():
        power = _exact(power, columns.min_on_kw)
    low, high = columns.min_kw, columns.max_kw
    power = np.where(low > power, low, power)
    return np.where(high < power, high, power)


def _exact(power: FloatArray, min_on_kw: FloatArray) -> FloatArray:
    """Rounding must not leave a device a hair below its minimum, nor one that pauses above 0."""
    for exact in (0.0, min_on_kw, -min_on_kw):
        near = (min_on_kw > 0) & (np.abs(power - exact) < _HAIR_KW)
        power = np.where(near, exact, power)
    return power


# Choosing by a mask costs more than all the arithmetic here: nan and infinity say what is absent.
_UNLIMITED: Final[FloatArray] = np.array([np.inf, 0.0])
"""How far beyond its reference a device may go, in the sense of a limit: by `Columns.limit`."""


def _up(columns: Columns, hours: float, rule: PlanningRule) -> FloatArray:
    reference = columns.reference_kw
    kind = np.maximum(reference, 0.0) + _UNLIMITED[columns.limit.view(np.int8)]
    high: FloatArray = np.fmin(columns.max_kw, kind)
    high = np.fmin(high, 0.0 - columns.least_kwh / hours)
    stored = columns.soc_kwh + 0.0 * columns.capacity_kwh  # nan without a capacity
    high = np.fmin(high, stored * rule.one_way_efficiency / hours)
    return high - reference


def _down(columns: Columns, hours: float, rule: PlanningRule) -> FloatArray:
    reference = columns.reference_kw
    kind = np.minimum(reference, 0.0) - _UNLIMITED[columns.limit.view(np.int8)]
    low: FloatArray = np.fmax(columns.min_kw, kind)
    low = np.fmax(low, -columns.most_kwh / hours)
    free = np.maximum(0.0, columns.capacity_kwh - columns.soc_kwh)
    low = np.fmax(low, -free / rule.one_way_efficiency / hours)
    return reference - low


def _columns(
    devices: Sequence[DeviceState], span: Interval, references: Mapping[str, Kw]
) -> Columns:
    profiles = [each.profile for each in devices]
    reference = _references(devices, references)
    capacity = _floats([each.capacity_kwh for each in profiles])
    soc = _floats([each.soc_kwh for each in devices])
    least, most = _energy(devices, span)
    return Columns(
        min_kw=_floats([each.min_kw for each in profiles]),
        max_kw=_floats([each.max_kw for each in profiles]),
        reference_kw=reference,
        limit=_flags([each.control is _LIMIT for each in profiles]),
        capacity_kwh=capacity,
        soc_kwh=soc,
        least_kwh=least,
        most_kwh=most,
        ramp_kw_per_s=_floats([each.ramp_kw_per_s for each in profiles]),
        min_on_kw=_floats([each.min_on_kw for each in profiles]),
        tier=np.array([each.tier for each in profiles], np.int64),
        usable=_safe(profiles)
        & _flags([each.connected and each.available for each in devices])
        & ~np.isnan(reference)
        & (np.isnan(capacity) | ~np.isnan(soc)),
    )


def _references(devices: Sequence[DeviceState], references: Mapping[str, Kw] | None) -> FloatArray:
    own = [each.reference_kw for each in devices]
    if references:
        ids = (each.profile.device_id for each in devices)
        own = [references.get(name, kw) for name, kw in zip(ids, own, strict=True)]
    return _floats(own) + 0.0  # no device is at minus zero


def _energy(devices: Sequence[DeviceState], span: Interval) -> tuple[FloatArray, FloatArray]:
    """Least and most energy of each device within the span, as `within_deadline` has it."""
    most = _floats([each.wanted_kwh for each in devices])
    least = np.full(len(devices), _NAN)
    rows = np.flatnonzero(~np.isnan(most))
    if len(rows) < len(devices):
        takes = [each.take_kwh for each in devices]
        for row in np.flatnonzero(np.isnan(most)).tolist() if any(takes) else ():
            least[row], most[row] = takes[row] or (_NAN, _NAN)
    if len(rows):
        wanting, wanted = [devices[row] for row in rows.tolist()], most[rows]
        end, leaves = span.end, [each.leaves_at for each in wanting]
        hours = np.array(
            [_NAN if at is None else (at - end).total_seconds() for at in leaves]
        ) / 3600.0  # fmt: skip
        full = _floats([each.profile.min_kw for each in wanting])
        later = np.where(np.isnan(hours), wanted, -full * np.maximum(0.0, hours))
        least[rows] = np.maximum(0.0, wanted - later)
    return least, most


def _safe(profiles: Sequence[DeviceProfile]) -> BoolArray:
    """Whether devices fall back by themselves, or to a declared power."""
    return _flags([each.lease is not _NONE or each.fallback_kw is not None for each in profiles])


def _floats(values: Sequence[float | None]) -> FloatArray:
    """A column with nan for None."""
    try:
        return np.fromiter(values, np.float64, len(values))
    except TypeError:  # some are None: rarely worth looking for beforehand
        known = [_NAN if value is None else value for value in values]
        return np.fromiter(known, np.float64, len(known))


def _flags(values: Sequence[bool]) -> BoolArray:
    return np.fromiter(values, np.bool_, len(values))
