"""Suggested needs and bids: volumes that the assets can hold, prices that show a merit order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from firmware_sim.market_entry import CARS, HOMES, SITES, floor
from firmware_sim.scenario import MarketDay, SuggestedBid, SuggestedNeed
from marketplace_core.registry.asset import Asset
from marketplace_core.units import Direction

SITES_THAT_CAN_WIN = 2
"""Car parks whose bids are below the price cap."""
_BUYER = "org_grid_operator"
_CAP = Decimal(400)
_NEEDED_SHARE = 0.9
"""Part of the acceptable bids that the buyer needs."""
_STEP_KW = 0.5
_MIN_KW = 1.0
"""Smallest part that a divisible bid is cut to."""
_SITE_PRICES = (Decimal(240), Decimal(290), Decimal(450))
"""Of the first, second and third car park; the third is too dear."""
_LIKE_DAYS, _HOUR_BEFORE = "caiso_10_of_10", "meter_before_after"


class _Terms(NamedTuple):
    """How a group of assets is offered."""

    seller: str
    technology: str
    price: Decimal
    """Utilisation price per MWh."""
    share: float
    """Part of what the assets are registered for."""
    baseline: str
    divisible: bool = True


_TERMS = {
    Direction.DOWN: (
        _Terms(HOMES, "ev_charger", Decimal(60), 0.8, _HOUR_BEFORE),
        _Terms(HOMES, "battery", Decimal(95), 0.9, _LIKE_DAYS),
        _Terms(CARS, "ev_charger", Decimal(140), 0.8, _HOUR_BEFORE),
    ),
    Direction.UP: (
        _Terms(HOMES, "ev_charger", Decimal(90), 0.8, _HOUR_BEFORE),
        _Terms(CARS, "ev_charger", Decimal(130), 0.8, _HOUR_BEFORE),
        _Terms(HOMES, "battery", Decimal(180), 1.0, _LIKE_DAYS, divisible=False),
    ),
}
"""Cars of one station, and of one car park, say little about the same hours of other days, so
both take the hour before; homes export in summer, which only like days can show."""


def bids(market: MarketDay, registered: Sequence[Asset]) -> tuple[SuggestedBid, ...]:
    """The bids of every event, cheapest first."""
    found = []
    for event in market.events:
        up = event.direction is Direction.UP
        groups = [
            (terms, [one for one in registered if _is_of(one, terms)])
            for terms in _TERMS[event.direction]
        ]
        sites = [one for one in registered if one.technology == "site"] if up else []
        for number, site in enumerate(sites):
            price = _SITE_PRICES[min(number, len(_SITE_PRICES) - 1)]
            groups.append((_Terms(SITES, "site", price, 1.0, _HOUR_BEFORE), [site]))
        made = [_bid(event.name, event.direction, terms, group) for terms, group in groups]
        found += sorted((one for one in made if one.kw > 0), key=lambda one: one.price)
    return tuple(found)


def needs(market: MarketDay, offered: Sequence[SuggestedBid]) -> tuple[SuggestedNeed, ...]:
    """One need per event in which anybody bids."""
    found = []
    for event in market.events:
        acceptable = [one for one in offered if one.event == event.name and one.price <= _CAP]
        if acceptable:
            found.append(
                SuggestedNeed(
                    event=event.name,
                    buyer=_BUYER,
                    kw=_tight(acceptable),
                    direction=event.direction,
                    price_cap=_CAP,
                    baseline=_LIKE_DAYS,
                    allowed_baselines=(_HOUR_BEFORE,),
                )
            )
    return tuple(found)


def _tight(acceptable: Sequence[SuggestedBid]) -> float:
    """About nine tenths of the bids, such that the dearest is cut and every other is taken."""
    total = math.fsum(one.kw for one in acceptable)
    last = max(acceptable, key=lambda one: one.price)
    least = total - last.kw + last.min_kw
    most = max(least, total - _STEP_KW)
    return floor(min(most, max(_NEEDED_SHARE * total, least)), _STEP_KW)


def _is_of(asset: Asset, terms: _Terms) -> bool:
    return asset.organisation == terms.seller and asset.technology == terms.technology


def _bid(event: str, direction: Direction, terms: _Terms, group: Iterable[Asset]) -> SuggestedBid:
    up = direction is Direction.UP
    able = [one for one in group if (one.up_kw if up else one.down_kw) > 0]
    registered = math.fsum(one.up_kw if up else one.down_kw for one in able)
    kw = floor(terms.share * registered, _STEP_KW)
    return SuggestedBid(
        event=event, seller=terms.seller, assets=tuple(one.id for one in able), kw=kw,
        price=terms.price, divisible=terms.divisible,
        min_kw=min(kw, _MIN_KW) if terms.divisible else kw, baseline=terms.baseline,
    )  # fmt: skip
