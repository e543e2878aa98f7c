"""A contract: what an awarded bid obliges both sides to."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from marketplace_core.intervals import Interval
from marketplace_core.registry.asset import MeasurementPoint
from marketplace_core.units import Direction, Kw


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """Obligation of one seller towards one buyer over one service window."""

    id: str
    need_id: str
    bid_id: str
    buyer: str
    seller: str
    feeder: str
    direction: Direction
    kw: Kw
    window: Interval
    utilisation_price: Decimal
    """Per MWh."""
    currency: str
    assets: tuple[str, ...]
    measurement_point: MeasurementPoint
    baseline: str
    """Id of the baseline method, a key of the method registry."""
    terms: str
    """Id of the settlement terms."""
    signed_by: tuple[str, ...] = ()
    """Organisations that signed; in force when buyer and seller both have."""

    @property
    def in_force(self) -> bool:
        """Whether both sides have signed."""
        return self.buyer in self.signed_by and self.seller in self.signed_by
