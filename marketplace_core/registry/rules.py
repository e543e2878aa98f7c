"""Which assets the register admits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from marketplace_core.errors import RejectedError
from marketplace_core.registry.asset import Asset


def validate_assets(organisation: str, assets: Sequence[Asset]) -> None:
    """Check assets that an organisation registers. Raises RejectedError at the first fault.

    No two of them may share a device: two assets that drive one device would sell the
    same kilowatts twice.
    """
    for asset in assets:
        _validate(organisation, asset)
    _once([asset.id for asset in assets], "id", "asset ids are unique")
    devices = [device for asset in assets for device in asset.devices]
    _once(devices, "devices", "a device belongs to one asset")


def _validate(organisation: str, asset: Asset) -> None:
    if asset.organisation != organisation:
        raise RejectedError(
            f"asset {asset.id} names organisation {asset.organisation}", field="organisation",
            rule="an organisation registers its own assets",
        )  # fmt: skip
    for field, value in (("id", asset.id), ("feeder", asset.feeder), ("meter", asset.meter)):
        if not value.strip():
            raise RejectedError(
                f"asset {asset.id!r} has no {field}",
                field=field,
                rule=f"an asset names its {field}",
            )
    for field, kw in (("up_kw", asset.up_kw), ("down_kw", asset.down_kw)):
        if not math.isfinite(kw) or kw < 0:
            raise RejectedError(f"{kw} kW", field=field, rule="a capability is 0 kW or more")
    if max(asset.up_kw, asset.down_kw) <= 0:
        raise RejectedError(
            f"asset {asset.id} can move neither way", field="up_kw",
            rule="an asset is registered for a change UP or DOWN",
            remedy="give up_kw, down_kw or both",
        )  # fmt: skip
    if not asset.devices:
        raise RejectedError(
            f"asset {asset.id} has no device", field="devices",
            rule="an asset is driven through at least one device",
        )  # fmt: skip


def _once(names: Sequence[str], field: str, rule: str) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise RejectedError(f"{', '.join(twice)} occurs twice", field=field, rule=rule)
