"""Small figures: the merit order as a strip, and a bar against what it should have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from markupsafe import Markup

from gateway.cli.report_day import Bid
from gateway.cli.report_svg import Scale, box, figure, line, span, tag, text, tick_step, ticks
from gateway.cli.report_words import Json, number, price_unit, seller_name

TONES = 6
"""How many sellers have a colour of their own; names and ranks tell the others apart."""
_HEIGHT = 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 10.0, 32.0, 170.0
_STUB = 46.0
"""Width of a rejected bid, which was given no power."""
_STUBS = 4
_LETTER = 8.8
_TWO_LINES = 44.0
_TOTAL = 90.0
"""Room of the label of the total."""
_BAR = (170.0, 26.0)


def merit_order(
    report: Json, bids: Sequence[Bid], tones: Mapping[str, int], width: float = 770.0
) -> Markup:
    """Who was called: blocks as wide as their power and as high as their price."""
    accepted = [bid for bid in bids if bid.accepted]
    rejected = [bid for bid in bids if not bid.accepted][:_STUBS]
    end = width - _RIGHT - _STUB * len(rejected) - (12.0 if rejected else 0.0)
    total = sum(bid.kw for bid in accepted)
    x = Scale(0.0, total or 1.0, _LEFT, end)
    y = Scale(*span(_price(bid) for bid in bids), _BOTTOM, _TOP)
    drawn, from_kw = _axis(y, width, price_unit(report)), 0.0
    for bid in accepted:
        place = x(from_kw), x(from_kw + bid.kw)
        name = seller_name(report, bid.seller)
        drawn += _block(bid, place, y, tones.get(bid.seller, 0), name)
        from_kw += bid.kw
    drawn += [
        part for i, bid in enumerate(rejected) for part in _stub(bid, end + 12.0 + i * _STUB, y)
    ]
    drawn += _kw_axis(x, total)
    return figure(
        width, _HEIGHT, f"Merit order: {len(accepted)} bids accepted for {number(total)} kW, "
        f"{len(bids) - len(accepted)} rejected", *drawn,
    )  # fmt: skip


def _tone(index: int) -> str:
    """The class of a seller's colour."""
    return f"s{index % TONES}"


def against(value: float, target: float, reach: tuple[float, float], kind: str) -> Markup:
    """A bar of a kind and a tick where it should end; `reach` is the range of all such bars."""
    wide, high = _BAR
    x = Scale(*reach, 2.0, wide - 2.0)
    zero = x(0.0)
    return figure(
        wide, high, f"{number(value)} against {number(target)}",
        line(zero, 0.0, zero, high, "zero"),
        box(zero, 6.0, x(value) - zero, high - 12.0, kind),
        line(x(target), 1.0, x(target), high - 1.0, "instructed"),
    )  # fmt: skip


def _price(bid: Bid) -> float:
    return float(Decimal(bid.price))


def _axis(y: Scale, width: float, unit: str) -> list[Markup]:
    drawn = [text(4.0, 16.0, f"Price, {unit}", "heading")]
    whole = tick_step(y.low, y.high, 4) >= 1
    for value in ticks(y.low, y.high, 4):
        at = y(value)
        drawn.append(line(_LEFT, at, width - _RIGHT, at, "zero" if value == 0 else "grid"))
        drawn.append(text(_LEFT - 8.0, at + 5.0, number(value, 0 if whole else 2), anchor="end"))
    return drawn


def _block(
    bid: Bid, place: tuple[float, float], y: Scale, tone_index: int, name: str
) -> list[Markup]:
    start, end = place
    top, bottom = y(_price(bid)), y(0.0)
    said = f"{bid.rank}: {name}, {number(bid.kw)} kW at {number(bid.price, 2)} per MWh"
    drawn = [box(start, top, end - start, bottom - top, f"block {_tone(tone_index)}", title=said)]
    middle, room = (start + end) / 2, end - start
    if room >= _LETTER:
        drawn.append(text(middle, bottom - 7.0, str(bid.rank), "rank", "middle"))
    if room >= len(name) * _LETTER and bottom - top >= _TWO_LINES:
        drawn.append(text(middle, bottom - 27.0, name, None, "middle"))
    price = number(bid.price, 0 if _price(bid).is_integer() else 2)
    if room >= len(price) * _LETTER:
        drawn.append(text(middle, top - 5.0, price, anchor="middle"))
    return drawn


def _stub(bid: Bid, start: float, y: Scale) -> list[Markup]:
    top, bottom = y(_price(bid)), y(0.0)
    said = f"{bid.seller}: {bid.reason}"
    middle = start + (_STUB - 6.0) / 2
    cross = f"M{middle - 5:.1f} {bottom - 17:.1f}l10 10m0 -10l-10 10"
    price = number(bid.price, 0 if _price(bid).is_integer() else 2)
    return [
        box(start, top, _STUB - 6.0, bottom - top, "block refused", title=said),
        tag("path", d=cross, class_="cross"),
        text(middle, top - 5.0, price, anchor="middle"),
        text(middle, bottom + 20.0, "no", "soft", "middle"),
    ]


def _kw_axis(x: Scale, total: float) -> list[Markup]:
    if not total:
        return [text(_LEFT + 20.0, _BOTTOM - 20.0, "nobody was accepted", "soft")]
    drawn = [line(x(total), _TOP - 8.0, x(total), _BOTTOM, "instructed")]
    digits = 0 if tick_step(0.0, total, 7) >= 1 else 1
    drawn += [
        text(x(value), _BOTTOM + 20.0, number(value, digits), anchor="middle")
        for value in ticks(0.0, total, 7)
        if x(total) - x(value) > _TOTAL
    ]
    drawn.append(text(x(total), _BOTTOM + 20.0, f"{number(total)} kW", "heading", "end"))
    drawn.append(text(_LEFT, _BOTTOM + 42.0, "Power, cheapest first, kW", "heading"))
    return drawn
