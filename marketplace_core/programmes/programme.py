"""A programme of the index: facts about it, each with its source.

The index repeats what somebody published and says when it was read: it is never an offer.
What is not known is left out rather than guessed.
"""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import Final

import msgspec

from marketplace_core.errors import RejectedError
from marketplace_core.provenance import Confidence, Source
from marketplace_core.units import Direction, Kw

MONTHS: Final = 12
_HOURS_A_DAY: Final = 24
_LONGEST_ID: Final = 64


class PaymentKind(enum.Enum):
    """What an amount is paid for."""

    PER_KW_MONTH = "per_kw_month"
    """Each month of the season, for the power that is committed."""
    PER_KW_SEASON = "per_kw_season"
    """Each season, for the power that was delivered on average."""
    PER_KW_YEAR = "per_kw_year"
    PER_KWH = "per_kwh"
    """Energy delivered in events."""
    UPFRONT_PER_KW = "upfront_per_kw"
    """Once, spread over the term."""
    UPFRONT_PER_KWH_STORED = "upfront_per_kwh_stored"
    """Once, for the size of the storage, spread over the term."""
    UPFRONT_PER_DEVICE = "upfront_per_device"
    PER_DEVICE_YEAR = "per_device_year"
    AUCTION_PER_MWH = "auction_per_mwh"
    """Energy, at a price that an auction finds; the amount, if any, is a ceiling."""
    AUCTION_PER_KW_YEAR = "auction_per_kw_year"
    """Capacity, at a price that an auction finds; the amount, if any, is a ceiling."""


AUCTIONED = frozenset({PaymentKind.AUCTION_PER_MWH, PaymentKind.AUCTION_PER_KW_YEAR})


class Payment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a programme pays."""

    kind: PaymentKind
    amount: Decimal | None = None
    """In the programme's currency; None = it was not published, or an auction finds it."""
    where: str = ""
    """Which participants or places it is for; "" = all."""
    most: Decimal | None = None
    """Highest amount for one participant; each device of a portfolio counts as one."""


class Programme(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the index."""

    id: str
    """Short and lasting, such as `coned_csrp`."""
    name: str
    operator: str
    """Who runs it."""
    country: str
    """ISO 3166-1 alpha-2."""
    region: str = ""
    """State, zone or service area in words."""
    currency: str
    """ISO 4217."""
    direction: Direction = Direction.UP
    technologies: tuple[str, ...] = ()
    """What it takes; empty = anything that delivers."""
    minimum_kw: Kw = Kw(0.0)
    """Smallest portfolio that takes part by itself."""
    maximum_kw: Kw | None = None
    season: tuple[int, ...] = ()
    """Months in which events can come, 1 to 12; empty = all year."""
    weekdays_only: bool = False
    first_hour: int | None = None
    last_hour: int | None = None
    """Local hours between which events lie, such as 16 and 21."""
    notice_h: float | None = None
    """Hours between the call and the event."""
    longest_event_h: float | None = None
    events_per_year: int | None = None
    """Most events in a year."""
    hours_per_year: float | None = None
    """Most hours of events in a year."""
    term_years: float | None = None
    """Length of an agreement."""
    payments: tuple[Payment, ...] = ()
    penalties: str = ""
    """In words; "" = not known."""
    metering: str = ""
    notes: str = ""
    url: str
    """Where the operator writes about it."""
    sources: tuple[Source, ...]

    @property
    def months(self) -> int:
        """Months a year in which it pays for power."""
        return len(self.season) or MONTHS

    @property
    def as_of(self) -> str:
        """Date of the newest source."""
        return max(source.as_of for source in self.sources)

    @property
    def confidence(self) -> Confidence:
        """Confidence in the entry as a whole: that of its weakest part."""
        order = list(Confidence)
        return max((source.confidence for source in self.sources), key=order.index)


def validate_programme(programme: Programme) -> None:
    """Check an entry before it is shown. Raises RejectedError naming field, rule and remedy."""
    for field, rule, broken in _rules(programme):
        if broken:
            raise RejectedError(f"{programme.id}: {broken}", field=field, rule=rule)


def _rules(one: Programme) -> list[tuple[str, str, str]]:
    """Field, rule, and what is wrong ("" when nothing is)."""
    months = [month for month in one.season if not 1 <= month <= MONTHS]
    hours = (one.first_hour, one.last_hour)
    spans = [("longest_event_h", one.longest_event_h), ("hours_per_year", one.hours_per_year),
             ("notice_h", one.notice_h), ("term_years", one.term_years)]  # fmt: skip
    found = [
        ("id", "letters, digits and _, at most 64", "" if _plain(one.id) else repr(one.id)),
        ("country", "ISO 3166-1 alpha-2", "" if _code(one.country, 2) else repr(one.country)),
        ("currency", "ISO 4217", "" if _code(one.currency, 3) else repr(one.currency)),
        ("sources", "a fact has a source", "" if one.sources else "there is none"),
        ("url", "an https address", "" if one.url.startswith("https://") else repr(one.url)),
        ("season", "months are 1 to 12, each once",
         f"{list(one.season)}" if months or len(set(one.season)) < len(one.season) else ""),
        ("first_hour", "two hours of a day, or neither", "" if _hours(*hours) else f"{hours}"),
        ("minimum_kw", "0 kW or more, and not above the maximum",
         "" if 0 <= one.minimum_kw <= (one.maximum_kw or float("inf")) else f"{one.minimum_kw}"),
    ]  # fmt: skip
    found += [
        (name, "above 0", f"{value}") for name, value in spans if value is not None and value <= 0
    ]
    found += [
        ("payments", "an amount is 0 or more", f"{each.kind.value}: {each.amount}")
        for each in one.payments if each.amount is not None and each.amount < 0
    ]  # fmt: skip
    return found + _terms(one)


def _terms(one: Programme) -> list[tuple[str, str, str]]:
    """What is paid once needs a term to be spread over."""
    upfront = [each for each in one.payments if each.kind.value.startswith("upfront")]
    missing = upfront and one.term_years is None
    return [
        ("term_years", "what is paid once is spread over a term",
         "it is not said over how long" if missing else ""),
    ]  # fmt: skip


def _plain(name: str) -> bool:
    fits = 0 < len(name) <= _LONGEST_ID
    return fits and name.isascii() and name.replace("_", "").isalnum()


def _code(text: str, letters: int) -> bool:
    return len(text) == letters and text.isascii() and text.isalpha() and text.isupper()


def _hours(first: int | None, last: int | None) -> bool:
    if first is None or last is None:
        return first is last
    return 0 <= first < last <= _HOURS_A_DAY
