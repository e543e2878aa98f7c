"""Assets, their devices and their meters, as the register holds them."""

from __future__ import annotations

import enum

import msgspec

from marketplace_core.units import Kw


class MeasurementPoint(enum.Enum):
    """Where delivery is measured; a contract names one."""

    SITE_NET = "site_net"
    """The grid connection point: load, generation and storage together."""
    GROSS_LOAD = "gross_load"
    """The site's load with its own generation added back."""
    DEVICE = "device"
    """A sub-meter on the device alone."""


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """Something an organisation can sell flexibility from."""

    id: str
    organisation: str
    feeder: str
    technology: str
    """Descriptive (`battery`, `ev_charger`, `site`); no rule may depend on it."""
    devices: tuple[str, ...]
    """Device ids that are driven when the asset is dispatched."""
    meter: str
    """Reading series in which delivery of this asset is measured."""
    measurement_point: MeasurementPoint
    up_kw: Kw = Kw(0.0)
    """Largest change UP that the asset is registered for."""
    down_kw: Kw = Kw(0.0)
    """Largest change DOWN that the asset is registered for."""
