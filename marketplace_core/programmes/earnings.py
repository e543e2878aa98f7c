"""What a portfolio would earn in a programme, per kW and year, with what was assumed.

Every figure is `amount x quantity`, the quantity of a year of the portfolio:

    per kW-month     months of the season x kW x delivered share
    per kW-season    kW x delivered share
    per kW-year      kW x delivered share
    per kWh          kW x event hours x delivered share
    upfront          kW, kWh stored or devices, divided by the years of the term
    per device-year  devices
    auction          the same as its plain kind, at the price that the reader assumes

The sum is divided by the portfolio's kW. Nothing is discounted, no cost is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

import msgspec

from marketplace_core.errors import RejectedError
from marketplace_core.programmes.programme import AUCTIONED, Payment, PaymentKind, Programme
from marketplace_core.units import Direction, Kw, Kwh

_CENT: Final = Decimal("0.01")
_HOURS_A_YEAR: Final = 8784
"""Of a leap year."""
_KWH_OF_MWH: Final = 1000.0


class Portfolio(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody would bring."""

    kw: Kw
    """Flexible power in the direction asked."""
    direction: Direction = Direction.UP
    devices: int = 1
    stored_kwh: Kwh = Kwh(0.0)
    """Usable storage behind it."""
    country: str = ""
    """ISO 3166-1 alpha-2; "" = anywhere."""
    technology: str = ""
    """"" = not said."""


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader assumes where a programme does not say."""

    event_hours: float | None = None
    """Hours of events in a year; None = as many as the programme allows, where it says."""
    delivered_share: float = 0.9
    """Part of the committed power that is delivered."""
    price_per_mwh: Decimal | None = None
    """Where an auction finds the price of energy."""
    price_per_kw_year: Decimal | None = None
    """Where an auction finds the price of capacity."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One payment of a year."""

    kind: PaymentKind
    amount: Decimal
    """Of the whole portfolio in one year."""
    says: str
    """How it was found, in words."""


class Earning(msgspec.Struct, frozen=True, kw_only=True):
    """What a portfolio would earn in one programme."""

    programme_id: str
    name: str
    currency: str
    per_kw_year: Decimal | None
    """None = it cannot be said; `open_points` says why."""
    parts: tuple[Part, ...]
    assumed: tuple[str, ...]
    """What the figure stands on."""
    open_points: tuple[str, ...]
    """What is paid as well and could not be counted, or why nothing could."""
    misfits: tuple[str, ...]
    """Why this portfolio cannot take part as it is; empty = nothing speaks against it."""
    as_of: str
    confidence: str


def compare(
    programmes: Iterable[Programme], portfolio: Portfolio, assumptions: Assumptions
) -> list[Earning]:
    """Every programme for one portfolio: those that fit first, the best paid first, by currency.

    Amounts of different currencies are not compared: they stand in groups. Raises RejectedError.
    """
    check(portfolio, assumptions)
    found = [earning(each, portfolio, assumptions) for each in programmes]
    return sorted(found, key=_place)


def check(portfolio: Portfolio, assumptions: Assumptions) -> None:
    """Refuse what gives no figure. Raises RejectedError."""
    for field, value, rule, fine in (
        ("kw", portfolio.kw, "a portfolio is above 0 kW", 0 < portfolio.kw < math.inf),
        ("devices", portfolio.devices, "at least one device", portfolio.devices >= 1),
        ("stored_kwh", portfolio.stored_kwh, "0 kWh or more",
         0 <= portfolio.stored_kwh < math.inf),
        ("delivered_share", assumptions.delivered_share, "a share lies between 0 and 1",
         0 <= assumptions.delivered_share <= 1),
        ("event_hours", assumptions.event_hours, "hours of a year",
         0 <= (assumptions.event_hours or 0) <= _HOURS_A_YEAR),
    ):  # fmt: skip
        if not fine:
            raise RejectedError(f"{value}", field=field, rule=rule)


def earning(programme: Programme, portfolio: Portfolio, assumptions: Assumptions) -> Earning:
    """What one programme would pay this portfolio in a year."""
    hours, said = _event_hours(programme, assumptions)
    parts: list[Part] = []
    open_points: list[str] = []
    for payment in programme.payments:
        part = _part(payment, programme, portfolio, assumptions, hours)
        if isinstance(part, Part):
            parts.append(part)
        else:
            open_points.append(part)
    if not programme.payments:
        open_points.append("what it pays is not in the index")
    total = sum((part.amount for part in parts), Decimal(0))
    per_kw = (total / Decimal(repr(portfolio.kw))).quantize(_CENT, ROUND_HALF_EVEN)
    return Earning(
        programme_id=programme.id, name=programme.name, currency=programme.currency,
        per_kw_year=per_kw if parts else None, parts=tuple(parts),
        assumed=(f"{assumptions.delivered_share:.0%} of the power is delivered", said),
        open_points=tuple(open_points), misfits=misfits(programme, portfolio),
        as_of=programme.as_of, confidence=programme.confidence.value,
    )  # fmt: skip


def misfits(programme: Programme, portfolio: Portfolio) -> tuple[str, ...]:
    """Why a portfolio cannot take part as it is, one sentence for each reason."""
    reasons: list[str] = []
    if portfolio.country and portfolio.country != programme.country:
        reasons.append(f"it is for {programme.country}, not for {portfolio.country}")
    if portfolio.direction is not programme.direction:
        reasons.append(f"it wants flexibility {programme.direction.value}")
    if portfolio.kw < programme.minimum_kw:
        reasons.append(f"it begins at {programme.minimum_kw:g} kW")
    if programme.maximum_kw is not None and portfolio.kw > programme.maximum_kw:
        reasons.append(f"it ends at {programme.maximum_kw:g} kW")
    takes = programme.technologies
    if portfolio.technology and takes and portfolio.technology not in takes:
        reasons.append(f"it takes {', '.join(takes)} only")
    return tuple(reasons)


def _event_hours(programme: Programme, assumptions: Assumptions) -> tuple[float | None, str]:
    """Hours of events in a year, never more than the programme allows, and how they are known."""
    most = programme.hours_per_year
    if most is None and programme.events_per_year and programme.longest_event_h:
        most = programme.events_per_year * programme.longest_event_h
    wanted = assumptions.event_hours
    if wanted is None:
        if most is None:
            return None, "hours of events are not known"
        return most, f"events for {most:g} h a year, the most that it allows"
    if most is not None and wanted > most:
        return most, f"events for {most:g} h a year: it allows no more"
    return wanted, f"events for {wanted:g} h a year, as assumed"


def _part(
    payment: Payment, programme: Programme, portfolio: Portfolio, assumptions: Assumptions,
    hours: float | None,
) -> Part | str:  # fmt: skip
    """One payment of a year, or why it cannot be counted."""
    amount = _amount(payment, assumptions)
    name = payment.kind.value.replace("_", " ")
    if payment.where:
        name = f"{name} ({payment.where})"
    if amount is None:
        return (
            f"{name}: the amount is not known; assume a price"
            if (payment.kind in AUCTIONED)
            else f"{name}: the amount is not known"
        )
    quantity = _quantity(payment.kind, programme, portfolio, assumptions, hours)
    if quantity is None:
        return f"{name}: hours of events are not known; assume them"
    value, unit = quantity
    paid = amount * Decimal(repr(value))
    says = f"{name}: {amount} {programme.currency} x {value:g} {unit}"
    if payment.most is not None and paid > payment.most * portfolio.devices:
        paid = payment.most * portfolio.devices
        says = f"{says}, at most {payment.most} {programme.currency} each"
    if payment.kind.value.startswith("upfront"):
        years = programme.term_years or 1.0
        paid, says = paid / Decimal(repr(years)), f"{says}, over {years:g} years"
    return Part(kind=payment.kind, amount=paid.quantize(_CENT, ROUND_HALF_EVEN), says=says)


def _amount(payment: Payment, assumptions: Assumptions) -> Decimal | None:
    if payment.kind is PaymentKind.AUCTION_PER_MWH:
        return _capped(assumptions.price_per_mwh, payment.amount)
    if payment.kind is PaymentKind.AUCTION_PER_KW_YEAR:
        return _capped(assumptions.price_per_kw_year, payment.amount)
    return payment.amount


def _capped(assumed: Decimal | None, ceiling: Decimal | None) -> Decimal | None:
    if assumed is None or ceiling is None:
        return assumed
    return min(assumed, ceiling)


def _quantity(
    kind: PaymentKind, programme: Programme, portfolio: Portfolio, assumptions: Assumptions,
    hours: float | None,
) -> tuple[float, str] | None:  # fmt: skip
    """How much of a year is paid for, and its unit; None where hours of events are missing."""
    kw = portfolio.kw * assumptions.delivered_share
    kwh = None if hours is None else kw * hours
    found: dict[PaymentKind, tuple[float | None, str]] = {
        PaymentKind.PER_KW_MONTH: (kw * programme.months, "kW-months"),
        PaymentKind.PER_KW_SEASON: (kw, "kW"),
        PaymentKind.PER_KW_YEAR: (kw, "kW"),
        PaymentKind.AUCTION_PER_KW_YEAR: (kw, "kW"),
        PaymentKind.PER_KWH: (kwh, "kWh"),
        PaymentKind.AUCTION_PER_MWH: (None if kwh is None else kwh / _KWH_OF_MWH, "MWh"),
        PaymentKind.UPFRONT_PER_KW: (portfolio.kw, "kW"),
        PaymentKind.UPFRONT_PER_KWH_STORED: (portfolio.stored_kwh, "kWh stored"),
        PaymentKind.UPFRONT_PER_DEVICE: (float(portfolio.devices), "devices"),
        PaymentKind.PER_DEVICE_YEAR: (float(portfolio.devices), "devices"),
    }
    value, unit = found[kind]
    return None if value is None else (value, unit)


def _place(one: Earning) -> tuple[bool, str, bool, Decimal, str]:
    known = one.per_kw_year
    return (
        bool(one.misfits), one.currency, known is None, -(known or Decimal(0)), one.programme_id,
    )  # fmt: skip
