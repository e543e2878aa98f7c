"""Which of the SunSpec controls a unit offers, from its own registers.

A control is offered when its model is there, its enable point is implemented and its value can
be scaled. Whether the unit then obeys is only found out by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from adapters.modbus.sunspec import SCALES, Value

ControlName = Literal["wset", "wmaxlim_704", "wmaxlim_123", "storage_124"]


class Offer(msgspec.Struct, frozen=True):
    """One control of a unit."""

    control: ControlName
    model: int
    kind: Literal["setpoint", "limit"]
    revert_timer: bool
    """Whether the unit has a timer that ends the control when nobody refreshes it."""


class _Points(msgspec.Struct, frozen=True):
    model: int
    kind: Literal["setpoint", "limit"]
    enable: str
    values: tuple[str, ...]
    scale: str
    timer: str


_CONTROLS: Final[Mapping[ControlName, _Points]] = {
    "wset": _Points(704, "setpoint", "WSetEna", ("WSet",), "WSet_SF", "WSetRvrtTms"),
    "wmaxlim_704": _Points(
        704, "limit", "WMaxLimPctEna", ("WMaxLimPct",), "WMaxLimPct_SF", "WMaxLimPctRvrtTms"
    ),
    "wmaxlim_123": _Points(
        123, "limit", "WMaxLim_Ena", ("WMaxLimPct",), "WMaxLimPct_SF", "WMaxLimPct_RvrtTms"
    ),
    "storage_124": _Points(
        124, "limit", "StorCtl_Mod", ("InWRte", "OutWRte"), "InOutWRte_SF", "InOutWRte_RvrtTms"
    ),
}
HEARTBEAT_MODEL: Final = 715
CONTROL_MODELS: Final = frozenset(points.model for points in _CONTROLS.values())


def offers(models: Mapping[int, Mapping[str, Value]]) -> tuple[Offer, ...]:
    """What a unit offers; `models`: its points by model, as decoded."""
    found: list[Offer] = []
    for name, points in _CONTROLS.items():
        values = models.get(points.model)
        if values is None or not _usable(points, values):
            continue
        timer = values.get(points.timer) is not None
        found.append(Offer(name, points.model, points.kind, timer))
    return tuple(found)


def beats(models: Mapping[int, Mapping[str, Value]]) -> bool:
    """Whether a unit takes a controller's heartbeat (model 715)."""
    return models.get(HEARTBEAT_MODEL, {}).get("ControllerHb") is not None


def _usable(points: _Points, values: Mapping[str, Value]) -> bool:
    if values.get(points.enable) is None or not all(name in values for name in points.values):
        return False
    scale = values.get(points.scale)
    return scale in SCALES
