"""An order: use of contracted flexibility, now or soon."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from marketplace_core.intervals import Interval
from marketplace_core.units import Direction, Kw


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Power that a buyer calls from its contracts on one feeder."""

    id: str
    buyer: str
    need_id: str
    feeder: str
    direction: Direction
    kw: Kw
    interval: Interval
    revision: int = 0
    """0 as submitted; a revised plan re-enters intake with the next number."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What an order asks of one contract."""

    contract_id: str
    seller: str
    kw: Kw
    """Flexibility in the order's direction, positive."""
    price: Decimal
    """Utilisation price per MWh; calls are made in the order of this."""


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan asks of one device."""

    device_id: str
    contract_id: str
    share_kw: Kw
    """Flexibility in the order's direction, positive."""
    reference_kw: Kw
    """Power of the device that the share was added to."""
    power_kw: Kw
    """Absolute setpoint: `reference_kw + direction.sign * share_kw`."""


class Exclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A device that the plan left out, and why."""

    device_id: str
    reason: str


class Shortfall(msgspec.Struct, frozen=True, kw_only=True):
    """A driven device that does not do its share."""

    device_id: str
    contract_id: str
    delivered_kw: Kw
    """What it really gives, in the order's direction; 0 when it gives nothing."""
    reason: str
