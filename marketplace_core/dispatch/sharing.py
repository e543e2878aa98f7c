"""How a target is shared over devices: exactly, by sorting, without iteration.

The shares always sum to the target, or to what is stated in `divide`; none exceeds its bound.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np

from marketplace_core.dispatch.stretches import FloatArray, IntArray, Stretches, settle, whole

_FEW_TIERS: Final = 8
"""So many are looked for one by one rather than sorted."""


class Fairness(enum.Enum):
    """Who gives how much of what is asked."""

    PROPORTIONAL = "proportional"
    """The same part of its room from each device."""
    EQUAL = "equal"
    """The same power from each device that has it; who has less gives all of it."""
    PRIORITY = "priority"
    """The lowest rank first, up to its room; devices of one rank in proportion."""
    ROTATE = "rotate"
    """The same with what a device was used for before as rank; of equals the one that stands
    first gives all it can, so that few are called at a time and others the next time."""


class Sharing(msgspec.Struct, frozen=True):
    """How a plan shares what is called over the devices of a contract."""

    fairness: Fairness = Fairness.PROPORTIONAL
    weights: Mapping[str, float] = {}
    """Weight by device id, for `PROPORTIONAL` and `EQUAL`; 1 where a device is not named."""
    ranks: Mapping[str, float] = {}
    """Merit or former use by device id, for `PRIORITY` and `ROTATE`; 0 where not named."""

    @property
    def all_serve(self) -> bool:
        """Whether every device is meant to take part."""
        return self.fairness in {Fairness.PROPORTIONAL, Fairness.EQUAL}


BY_ROOM: Final = Sharing()
"""The default: in proportion to room."""


class Claims(NamedTuple):
    """What devices bring to the sharing beside their room; shapes (n,)."""

    tier: IntArray
    """A higher tier serves only what the lower ones leave over."""
    weight: FloatArray | None = None
    """Part that a device takes beside others, for `PROPORTIONAL` and `EQUAL`; None = all alike."""
    rank: FloatArray | None = None
    """Merit or former use, for `PRIORITY` and `ROTATE`; None = all alike."""

    def of(self, rows: IntArray) -> Claims:
        """The same for some devices only; rows rise."""
        if len(rows) == len(self.tier):
            return self
        return Claims(
            self.tier[rows],
            None if self.weight is None else self.weight[rows],
            None if self.rank is None else self.rank[rows],
        )


def divide(
    target_kw: float, stretches: Stretches, claims: Claims, fairness: Fairness
) -> FloatArray:
    """Share a target over devices that have room, the lowest tier first; shape (n,), in kW.

    No share exceeds its device's room, and each lies in one of its stretches. The sum is never
    above the target (but for 1e-7 kW of rounding) and never falls when the target rises.
    Without minimum power it is the target or all the room. With it, what lacks is less than
    the smallest minimum power among the devices of each tier that are not at their top: none
    of them could be lifted over its next gap. Of equal claims the device that stands first
    is first.

    Raises:
        ValueError: the target is negative or not finite, a weight is not positive, or a rank is
            not finite.
    """
    _check_claims(target_kw, claims)
    shares = np.zeros(len(claims.tier))
    left = target_kw
    for rows in _by_tier(claims.tier):
        shares[rows] = _divide(left, stretches.of(rows), claims.of(rows), fairness)
        left = max(0.0, left - float(shares[rows].sum()))
    return shares


def allocate(
    target_kw: float, headroom_kw: FloatArray, minimum_kw: FloatArray | None = None
) -> FloatArray:
    """Share a target over devices in proportion to their headroom.

    Shapes are (n,). No share exceeds its headroom; the shares sum to the target, or to
    the whole headroom when that is less; no share falls when the target rises. With
    `minimum_kw` the minima are served first (in proportion, while the target is below
    their sum) and the rest goes by the headroom left above them.

    Raises:
        ValueError: a number is negative or not finite, or a minimum exceeds its headroom.
    """
    room = np.asarray(headroom_kw, dtype=np.float64)
    least = np.zeros_like(room) if minimum_kw is None else np.asarray(minimum_kw, np.float64)
    _check(target_kw, room, least)
    if target_kw >= room.sum():
        return room.copy()
    base = least.sum()
    if target_kw <= base:
        return _scaled(least, target_kw, base)
    above = room - least
    return np.minimum(least + _scaled(above, target_kw - base, above.sum()), room)


def allocate_tiers(target_kw: float, headroom_kw: FloatArray, tiers: Sequence[int]) -> FloatArray:
    """Like `allocate`, the lowest tier first: a higher one serves only what is left over.

    Shapes are (n,). Raises ValueError as `allocate` does.
    """
    room = np.asarray(headroom_kw, dtype=np.float64)
    claims = Claims(np.asarray(tiers, dtype=np.int64))
    return divide(target_kw, whole(room), claims, Fairness.PROPORTIONAL)


class _Way(Protocol):
    """A fairness, for the devices of one tier."""

    def keys(self, share_kw: FloatArray) -> FloatArray:
        """The level at which each device would have a share; shape (k, n) as `share_kw`."""

    def reached(self, target_kw: float) -> float:
        """The level of a target below the whole room when every share can be held."""

    def spread(self, target_kw: float, low: FloatArray, high: FloatArray) -> FloatArray:
        """Shares that sum to the target, each within its two ends; shapes (n,)."""


class _Level:
    """Every device rises with one level, as fast as its weight says."""

    def __init__(self, weight: FloatArray, top: FloatArray) -> None:
        self._weight = weight
        self._top = top

    def keys(self, share_kw: FloatArray) -> FloatArray:
        """The level at which each device would have a share."""
        return share_kw / self._weight

    def reached(self, target_kw: float) -> float:
        """The level of a target when every share can be held."""
        return self._level(target_kw, np.zeros_like(self._top), self._top)

    def spread(self, target_kw: float, low: FloatArray, high: FloatArray) -> FloatArray:
        """Shares at the one level that gives the target."""
        level = self._level(target_kw, low, high)
        return np.clip(level * self._weight, low, high)

    def _level(self, target_kw: float, low: FloatArray, high: FloatArray) -> float:
        """Water filling: between two neighbouring ends the sum is linear in the level."""
        weight = self._weight
        begins, ends = low / weight, high / weight
        points = np.concatenate((begins, ends))
        order = np.argsort(points, kind="stable")
        points = points[order]
        slope = np.cumsum(np.concatenate((weight, -weight))[order])
        sums = low.sum() + np.cumsum(slope[:-1] * np.diff(points))
        after = min(int(np.searchsorted(np.maximum.accumulate(sums), target_kw)), len(sums) - 1)
        start, end = float(points[after]), float(points[after + 1])
        rising = (begins <= start) & (ends >= end)
        total = float(weight[rising].sum())
        if total <= 0:
            return end
        fixed = float(np.where(ends <= start, high, low)[~rising].sum())
        return min(max((target_kw - fixed) / total, start), end)


class _Fill:
    """Groups of devices one after the other; within a group in proportion."""

    def __init__(self, group: IntArray, top: FloatArray) -> None:
        self._group = group
        self._top = top

    def keys(self, share_kw: FloatArray) -> FloatArray:
        """The target at which each device would have a share."""
        totals = np.bincount(self._group, self._top)
        before = np.concatenate(([0.0], np.cumsum(totals)[:-1]))
        return before[self._group] + totals[self._group] * (share_kw / self._top)

    def reached(self, target_kw: float) -> float:
        """The level is the target itself."""
        return target_kw

    def spread(self, target_kw: float, low: FloatArray, high: FloatArray) -> FloatArray:
        """Every low end, and the rest group by group."""
        above = high - low
        left = max(0.0, target_kw - float(low.sum()))
        sums = np.cumsum(np.bincount(self._group, above))
        last = int(np.searchsorted(sums, left))
        shares = np.where(self._group < last, high, low)
        marginal = self._group == last
        rest = max(0.0, target_kw - float(shares.sum()))
        part = _scaled(above[marginal], rest, float(above[marginal].sum()))
        shares[marginal] = np.minimum(low[marginal] + part, high[marginal])
        return shares


def _divide(
    target_kw: float, stretches: Stretches, claims: Claims, fairness: Fairness
) -> FloatArray:
    top = stretches.top
    gaps = len(stretches.low) > 1
    if fairness is Fairness.PROPORTIONAL and claims.weight is None and not gaps:
        return allocate(target_kw, top)
    if target_kw >= top.sum():
        return top
    way = _way(claims, fairness, top)
    low, high = stretches.low[0], stretches.high[0]
    if gaps:
        keys = way.keys(stretches.low[1:])
        low, high = settle(target_kw, stretches, keys, way.reached(target_kw))
        if target_kw >= high.sum():
            return high
    return way.spread(target_kw, low, high)


def _way(claims: Claims, fairness: Fairness, top: FloatArray) -> _Way:
    count = len(top)
    weight = np.ones(count) if claims.weight is None else claims.weight
    rank = np.zeros(count) if claims.rank is None else claims.rank
    match fairness:
        case Fairness.PROPORTIONAL:
            return _Level(weight * top, top)
        case Fairness.EQUAL:
            return _Level(weight, top)
        case Fairness.PRIORITY:
            return _Fill(np.unique(rank, return_inverse=True)[1], top)
        case Fairness.ROTATE:
            place = np.empty(count, np.int64)
            place[np.argsort(rank, kind="stable")] = np.arange(count)
            return _Fill(place, top)


def _by_tier(tier: IntArray) -> list[IntArray]:
    """Rows of each tier, the lowest tier first."""
    if len(tier) == 0:
        return []
    lowest, highest = int(tier.min()), int(tier.max())
    if highest - lowest < _FEW_TIERS:
        rows = (np.flatnonzero(tier == level) for level in range(lowest, highest + 1))
        return [each for each in rows if len(each)]
    order = np.argsort(tier, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(tier[order])) + 1)


def _scaled(parts: FloatArray, target: float, total: float) -> FloatArray:
    share: FloatArray = parts * (target / total if total > 0 else 0.0)
    return np.minimum(share, parts)


def _check(target: float, room: FloatArray, least: FloatArray) -> None:
    _check_target(target)
    if not np.isfinite(room).all() or (room < 0).any():
        msg = "headroom is finite and 0 kW or more"
        raise ValueError(msg)
    if room.shape != least.shape or (least < 0).any() or not (least <= room).all():
        msg = "a minimum lies between 0 kW and its headroom"
        raise ValueError(msg)


def _check_target(target: float) -> None:
    if not np.isfinite(target) or target < 0:
        msg = f"a target is 0 kW or more, not {target}"
        raise ValueError(msg)


def _check_claims(target: float, claims: Claims) -> None:
    _check_target(target)
    weight, rank = claims.weight, claims.rank
    if weight is not None and not (np.isfinite(weight).all() and (weight > 0).all()):
        msg = "a weight is finite and above 0"
        raise ValueError(msg)
    if rank is not None and not np.isfinite(rank).all():
        msg = "a rank is a finite number"
        raise ValueError(msg)
