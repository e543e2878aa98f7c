"""Rows of a fleet as the columns that the kernel takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from marketplace_core.dispatch.columns import Columns, Division, divide_columns
from marketplace_core.dispatch.sharing import Fairness
from marketplace_core.units import Direction
from tests.harness.plain_sharing import Device

FloatArray = npt.NDArray[np.float64]


def columns(devices: Sequence[Device]) -> Columns:
    table = {
        name: [getattr(each, name) for each in devices]
        for name in Columns._fields
    }  # fmt: skip
    kinds = {"limit": np.bool_, "usable": np.bool_, "tier": np.int64}
    return Columns(**{
        name: np.array(values, kinds.get(name, np.float64)) for name, values in table.items()
    })  # fmt: skip


def divided(
    target: float,
    devices: Sequence[Device],
    direction: Direction = Direction.UP,
    hours: float = 1.0,
    fairness: Fairness = Fairness.PROPORTIONAL,
) -> Division:
    return divide_columns(
        target, columns(devices), direction, hours, fairness=fairness,
        weight=np.array([each.weight for each in devices], np.float64),
        rank=np.array([each.rank for each in devices], np.float64),
    )  # fmt: skip
