"""What a clearing says: awards, rejections with reasons, and how sure it is."""

from __future__ import annotations

import enum

import msgspec


class Method(enum.Enum):
    """How an auction is cleared."""

    EXACT = "exact"
    """Least unmet energy, then least cost, proven."""
    GREEDY = "greedy"
    """By price, whole or remainder or next: the rule that can be followed by hand."""


class OfferAward(msgspec.Struct, frozen=True, kw_only=True):
    """What a taken bid is awarded."""

    bid: str
    kw: tuple[float, ...]
    pay: float
    """Over all windows, if all of it is delivered."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Why a bid was not taken."""

    bid: str
    reason: str
    """A sentence that its seller understands."""
    kind: str
    """Value of a `Cause`."""
    extra_cost: float | None = None
    """By how much the best clearing with this bid costs more; None where it is not a matter of
    cost or is not known."""
    extra_unmet_kwh: float | None = None
    """How much more energy the best clearing with this bid leaves unmet."""
    exact: bool = False
    """Whether the extra is the exact amount; else it is at least that much."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The clearing of one instance."""

    objective: float
    """Cost of the awards at the bids' own prices; what was minimised."""
    unmet_kw: tuple[float, ...]
    awards: tuple[OfferAward, ...]
    """By bid id."""
    rejected: tuple[Rejection, ...]
    """By bid id."""
    gap: float | None
    """(objective - bound) / objective; None where no bound holds: greedy, or unmet not proven."""
    bound: float
    """No clearing with this little unmet energy costs less."""
    unmet_kwh: float
    unmet_bound_kwh: float
    """No clearing leaves less unmet."""
    unmet_proven: bool
    ties_settled: bool
    """Whether price, then id, is proven to have decided between clearings that are equally good."""
    prices: tuple[float | None, ...]
    """Uniform price of each window, per MWh; None where nothing is awarded or pay is as bid."""
    method: Method
