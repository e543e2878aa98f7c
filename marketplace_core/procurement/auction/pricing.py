"""What awarded bids are paid (ADR 19).

Pay as bid: each its own price. Pay as clear: in each window every awarded bid is paid the price
of the dearest awarded bid of that window. So nobody is paid below its price and nobody has to
be made whole; a bid that was left out may have asked less than that, and is told so.
"""

from __future__ import annotations

import numpy as np

from marketplace_core.procurement.auction.instance import KWH_PER_MWH, Instance, Offer
from marketplace_core.procurement.auction.tableau import FloatArray
from marketplace_core.procurement.need import Pricing


def uniform_prices(
    instance: Instance, bids: tuple[Offer, ...], kw: FloatArray
) -> tuple[float | None, ...]:
    """Price per MWh of each window; None where nothing is awarded or pay is as bid."""
    if instance.pricing is Pricing.PAY_AS_BID:
        return (None,) * instance.windows
    asked = np.array([bid.price_per_mwh for bid in bids]).reshape(len(bids), instance.windows)
    return tuple(
        float(asked[kw[:, window] > 0, window].max()) if (kw[:, window] > 0).any() else None
        for window in range(instance.windows)
    )


def pay(instance: Instance, bid: Offer, kw: FloatArray, prices: tuple[float | None, ...]) -> float:
    """What a bid is paid for `kw` in each window, if it delivers all of it."""
    paid = np.array(
        [
            asked if uniform is None else uniform
            for asked, uniform in zip(bid.price_per_mwh, prices, strict=True)
        ]
    )
    return float((kw * paid * np.array(instance.hours)).sum()) / KWH_PER_MWH
