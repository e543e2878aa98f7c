"""Settings of time, plans, windows and metrics, and what every section has in common."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TimeSettings(Section):
    """Simulated time; leave out in production."""

    market_epoch: datetime | None = None
    wall_epoch: float | None = None
    """Unix seconds at which market time was `market_epoch`."""
    begins_by: Path | None = None
    """In place of `wall_epoch`: a file that will hold it; until it is there market time stands."""
    speed: float = Field(default=1.0, gt=0)


class PlanSettings(Section):
    """How what a contract is called for is shared over its devices."""

    fairness: Literal["proportional", "equal", "priority", "rotate"] = "proportional"
    """By room; the same power from each; by `profile.rank`; the least used first."""
    rotate_days: float = Field(default=30.0, gt=0, le=3_660)
    """Days of use that `rotate` looks back on."""


class ObserveSettings(Section):
    """When settlement windows close; market seconds."""

    grace_s: float = Field(default=120.0, ge=0)
    late_for_s: float = Field(default=86_400.0, ge=0)
    rebound_s: float = Field(default=3_600.0, ge=0)
    """How long after an order its contracts are watched on: the rebound is measured."""


class MetricsSettings(Section):
    """What `/metrics` shows."""

    per_device: bool = False
    """A label per device: for a site of some dozens, never for a fleet."""
