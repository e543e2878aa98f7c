"""Shares that devices can hold when they cannot run below a minimum power.

Such a device stands still or runs at `min_on_kw` or more, in either direction of power. In
terms of its share that leaves up to three stretches with gaps between them. A charger that
draws 7 kW and needs 1.4 kW can give 0 to 5.6 kW, or 7 kW by pausing, but not 6 kW.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SLACK_KW: Final = 1e-7
"""Rounding of sums over many devices: less than this is no difference."""


class Stretches(NamedTuple):
    """Shares in kW that devices can hold: rising stretches, shapes (k, n), k = 1 or 3.

    The first one begins at 0. A stretch that a device does not have is infinite.
    """

    low: FloatArray
    high: FloatArray

    @property
    def top(self) -> FloatArray:
        """The largest share of each device, shape (n,)."""
        top: FloatArray = self.high[0]
        for low, high in zip(self.low[1:], self.high[1:], strict=True):
            top = np.where(np.isfinite(low), high, top)
        return top

    def of(self, rows: IntArray) -> Stretches:
        """The same for some devices only; rows rise."""
        if len(rows) == self.low.shape[1]:
            return self
        return Stretches(self.low.take(rows, axis=1), self.high.take(rows, axis=1))


def whole(room_kw: FloatArray) -> Stretches:
    """Any share up to the room; shape (n,)."""
    return Stretches(np.zeros((1, len(room_kw))), room_kw[np.newaxis, :])


def stretches_of(room_kw: FloatArray, toward_kw: FloatArray, min_on_kw: FloatArray) -> Stretches:
    """What devices can hold of their room; shapes (n,).

    `toward_kw` is each device's reference, positive in the order's direction: a share moves
    the power to `toward_kw + share`, which has to be 0, or `min_on_kw` or more away from it.
    A share of 0 leaves the device alone, wherever it is.
    """
    gapped = (min_on_kw > 0) & (toward_kw < min_on_kw)
    if not gapped.any():
        return whole(room_kw)
    stops = gapped & (toward_kw < 0)
    first = np.where(gapped, np.maximum(0.0, -min_on_kw - toward_kw), room_kw)
    low = np.full((3, len(room_kw)), np.inf)
    low[0] = 0.0
    low[1, gapped] = np.where(stops, -toward_kw, min_on_kw - toward_kw)[gapped]
    low[2, stops] = (min_on_kw - toward_kw)[stops]
    low[1:][low[1:] > room_kw + SLACK_KW] = np.inf
    low[1:] = np.where(np.isfinite(low[1:]), np.minimum(low[1:], room_kw), np.inf)
    high = np.where(np.isfinite(low), room_kw, np.inf)
    high[0] = np.minimum(first, room_kw)
    high[1] = np.where(stops, low[1], high[1])
    return Stretches(low, high)


def settle(
    target_kw: float, stretches: Stretches, keys: FloatArray, reached: float
) -> tuple[FloatArray, FloatArray]:
    """Choose one stretch for each device: its least and its largest share, shapes (n,).

    `keys`, shape (k - 1, n), says at which level of sharing a device reaches the far side of
    each of its gaps, and `reached` which level the target would have without gaps. Devices are
    lifted over a gap in the order of their keys: those that the level reaches, and more while
    the target needs it; one whose least share no longer fits is passed over.

    The order does not depend on the target, so a larger target never ends with less. Either
    the largest shares sum to the target or more, or what lacks is less than the gap above the
    stretch of every device that could give more.
    """
    low, high = stretches
    steps = _steps(stretches, keys)
    least = np.cumsum(steps.least)
    most = np.cumsum(np.concatenate(([high[0].sum()], steps.most)))
    fit = int(np.searchsorted(least, target_kw + SLACK_KW, side="right"))
    due = int(np.searchsorted(steps.key, reached, side="right"))
    enough = int(np.searchsorted(most, target_kw - SLACK_KW))
    taken = min(fit, max(due, enough))
    at = np.bincount(steps.device[:taken], minlength=low.shape[1])
    if taken == fit:
        spare = target_kw + SLACK_KW - (float(least[taken - 1]) if taken else 0.0)
        _top_up(at, steps, taken, spare, target_kw - SLACK_KW - float(most[taken]))
    column = np.arange(low.shape[1])
    return low[at, column], high[at, column]


class _Steps(NamedTuple):
    """Every way over a gap, in the order in which they are taken; shapes (m,)."""

    device: IntArray
    number: IntArray
    """The stretch that it leads out of."""
    key: FloatArray
    least: FloatArray
    """What it adds to the device's least share, in kW."""
    most: FloatArray
    """What it adds to the device's largest share, in kW."""


def _steps(stretches: Stretches, keys: FloatArray) -> _Steps:
    low, high = stretches
    number, device = np.nonzero(np.isfinite(low[1:]))
    key = keys[number, device]
    least = low[number + 1, device] - low[number, device]
    most = high[number + 1, device] - high[number, device]
    # Steps alike in all of this are alike for the plan, whatever place their devices have.
    order = np.lexsort((most, least, number, key))
    return _Steps(device[order], number[order], key[order], least[order], most[order])


def _top_up(at: IntArray, steps: _Steps, start: int, spare: float, lacking: float) -> None:
    """Lift those that still fit, until nothing lacks; each is looked at once."""
    rest = start + np.flatnonzero(steps.least[start:] <= spare)
    for index in rest.tolist():
        if lacking <= 0:
            return
        device, least = steps.device[index], float(steps.least[index])
        if least <= spare and at[device] == steps.number[index]:
            at[device] += 1
            spare -= least
            lacking -= float(steps.most[index])
