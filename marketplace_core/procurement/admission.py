"""Which needs and bids the market admits: checked when they are made, not when they clear.

The price cap and the minimum size are left to the clearing: a bid that breaks them is
part of the auction and its rejection is published with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from marketplace_core.commands import PlaceBid, PublishNeed
from marketplace_core.errors import RejectedError
from marketplace_core.procurement.need import Need
from marketplace_core.registry.asset import Asset
from marketplace_core.units import Direction
from marketplace_core.verification.baselines import METHODS

_ROUNDING_KW: Final = 1e-9
_CURRENCY_LETTERS: Final = 3


def validate_need(command: PublishNeed) -> None:
    """Check a need before it is published. Raises RejectedError."""
    _positive(command.kw, "kw", "a need is above 0 kW")
    _price(command.price_cap, "price_cap")
    if not math.isfinite(command.min_bid_kw) or command.min_bid_kw < 0:
        raise RejectedError(
            f"{command.min_bid_kw} kW", field="min_bid_kw", rule="a minimum is 0 kW or more"
        )
    if len(command.currency) != _CURRENCY_LETTERS or not command.currency.isupper():
        raise RejectedError(
            f"{command.currency!r}", field="currency", rule="an ISO 4217 code", remedy="as in GBP"
        )
    for method in (command.baseline, *command.allowed_baselines):
        if method not in METHODS:
            raise RejectedError(
                f"there is no baseline method {method!r}", field="baseline",
                rule="a need names baseline methods of the registry",
                remedy=f"choose from {', '.join(METHODS)}",
            )  # fmt: skip


def validate_bid(need: Need, place_bid: PlaceBid, assets: Mapping[str, Asset], seller: str) -> None:
    """Check a bid before it is sealed. Raises RejectedError.

    `assets` holds the register's entries for the ids that the bid names; an id that is
    missing and an id of another organisation are refused in the same words.
    """
    _check_volume(place_bid)
    _price(place_bid.utilisation_price, "utilisation_price")
    named = _check_assets(need, place_bid, assets, seller)
    registered = sum(_capability(asset, need.direction) for asset in named)
    if place_bid.kw > registered + _ROUNDING_KW:
        raise RejectedError(
            f"{place_bid.kw} kW exceeds the {registered} kW that the assets are registered for",
            field="kw", rule=f"a bid is within the registered capability {need.direction.value}",
            remedy="offer less or name more assets",
        )  # fmt: skip
    allowed = ("", need.baseline, *need.allowed_baselines)
    if place_bid.baseline not in allowed:
        raise RejectedError(
            f"baseline {place_bid.baseline!r} is not allowed by the buyer",
            field="baseline", rule="a bid names a baseline that its need allows",
            remedy=f"choose from {', '.join(allowed[1:])}",
        )  # fmt: skip


def _check_volume(place_bid: PlaceBid) -> None:
    _positive(place_bid.kw, "kw", "a bid is above 0 kW")
    if not 0 <= place_bid.min_kw <= place_bid.kw:
        raise RejectedError(
            f"{place_bid.min_kw} kW of {place_bid.kw} kW", field="min_kw",
            rule="the smallest part of a bid lies between 0 kW and the bid",
        )  # fmt: skip


def _check_assets(
    need: Need, place_bid: PlaceBid, assets: Mapping[str, Asset], seller: str
) -> Sequence[Asset]:
    names = place_bid.assets
    if not names or len(set(names)) < len(names):
        raise RejectedError(
            f"{len(names)} assets, {len(set(names))} of them different", field="assets",
            rule="a bid names at least one asset, each once",
        )  # fmt: skip
    named = [_owned(assets.get(name), name, seller) for name in names]
    for asset in named:
        if asset.feeder != need.feeder:
            raise RejectedError(
                f"asset {asset.id} is on feeder {asset.feeder}, not on {need.feeder}",
                field="assets", rule="assets are on the need's feeder",
            )  # fmt: skip
    points = sorted({asset.measurement_point.value for asset in named})
    if len(points) > 1:
        raise RejectedError(
            f"the assets are measured at {' and '.join(points)}", field="assets",
            rule="one kind of measurement point per bid", remedy="make one bid for each kind",
        )  # fmt: skip
    return named


def _owned(asset: Asset | None, name: str, seller: str) -> Asset:
    if asset is None or asset.organisation != seller:
        raise RejectedError(
            f"you have no asset {name}", field="assets", rule="a bid names the seller's own assets",
            remedy="register the asset first",
        )  # fmt: skip
    return asset


def _capability(asset: Asset, direction: Direction) -> float:
    return asset.up_kw if direction is Direction.UP else asset.down_kw


def _positive(kw: float, field: str, rule: str) -> None:
    if not math.isfinite(kw) or kw <= 0:
        raise RejectedError(f"{kw} kW", field=field, rule=rule)


def _price(price: Decimal, field: str) -> None:
    if not price.is_finite() or price < 0:
        raise RejectedError(f"{price} per MWh", field=field, rule="a price is 0 or more per MWh")
