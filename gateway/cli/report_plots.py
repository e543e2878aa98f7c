"""The plot of an order: power at the meters, delivered flexibility, and what happened when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gateway.cli.report_day import MINUTE_S, Mark, OrderDay, Point
from gateway.cli.report_svg import (
    Scale,
    Step,
    box,
    figure,
    line,
    span,
    step_area,
    step_line,
    tag,
    text,
    tick_step,
    ticks,
    time_ticks,
)  # fmt: skip
from gateway.cli.report_words import Json, clock, local, number

HEIGHT = 540.0
_LEFT, _RIGHT = 98.0, 26.0
_LANES = ("incidents", "revisions", "flags")
_LANE_TOP, _LANE_HEIGHT = 30.0, 27.0
_POWER = (146.0, 350.0)
_FLEX = (386.0, 508.0)
_MARK = 26.0
"""Marks nearer than this, in user units, share one label."""
_LETTER = 8.8
"""About how wide a letter of a label is."""


@dataclass(frozen=True)
class _Panel:
    """A pair of axes."""

    x: Scale
    y: Scale

    def step(self, start: float, end: float, value: float, base: float = 0.0) -> Step:
        """A value that held from one instant to another."""
        return Step(self.x(start), self.x(end), self.y(value), self.y(base))


def order_plot(report: Json, order: OrderDay, width: float = 770.0) -> Markup:
    """Lanes of events above the power at the meters above the flexibility by period."""
    x = Scale(*order.shown, _LEFT, width - _RIGHT)
    levels = (v for p in order.points for v in (p.measured, p.baseline, p.target) if v is not None)
    power = _Panel(x, Scale(*_free(levels), _POWER[1], _POWER[0]))
    flexible = (v for p in order.periods for v in (p.asked, p.got))
    flex = _Panel(x, Scale(*span(flexible), _FLEX[1], _FLEX[0]))
    return figure(
        width, HEIGHT, f"{number(order.kw)} kW {order.direction}: measured power against baseline "
        "and instruction, delivered flexibility by settlement period, incidents, revisions, flags",
        _legend(width), *_ground(order, x, width), *_hours(report, order, x),
        *_axis(power, width), _heading("Power at the meters, kW; + injects", _POWER[0]),
        *_power(power, order.points),
        *_axis(flex, width), _heading("Flexibility in the direction asked, kW", _FLEX[0]),
        *_flexibility(flex, order),
        *_lanes(order, x, width),
    )  # fmt: skip


def clusters(places: Iterable[float], apart: float) -> list[list[int]]:
    """Indices of ascending places, grouped where one is nearer than `apart` to the group's first.

    Every index is in exactly one group.
    """
    groups: list[list[int]] = []
    first = -math.inf
    for index, place in enumerate(places):
        if groups and place - first < apart:
            groups[-1].append(index)
        else:
            groups.append([index])
            first = place
    return groups


def _free(levels: Iterable[float]) -> tuple[float, float]:
    """A range of what is there: power at a meter need not begin at zero to be read."""
    values = list(levels)
    if not values:
        return span(())
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or 1.0
    return low - room, high + room


def _legend(width: float) -> Markup:
    entries = (
        ("measured", "measured", 92.0), ("baseline", "baseline", 88.0),
        ("instructed", "instructed", 100.0), ("delivered", "delivered", 96.0),
        ("rebound", "after the order", 140.0),
    )  # fmt: skip
    at = width - _RIGHT - sum(wide + 34.0 for _, _, wide in entries) + 20.0
    drawn = []
    for name, said, wide in entries:
        if name in {"delivered", "rebound"}:
            drawn.append(box(at, 4.0, 24.0, 13.0, name))
        else:
            drawn.append(line(at, 11.0, at + 24.0, 11.0, name))
        drawn.append(text(at + 30.0, 16.0, said))
        at += wide + 34.0
    return tag("g", *drawn, class_="legend")


def _ground(order: OrderDay, x: Scale, width: float) -> list[Markup]:
    """The order's interval, and the gateway's bad minutes, behind both panels."""
    start, end = x(order.start), x(order.end)
    drawn = [box(start, top, end - start, bottom - top, "order") for top, bottom in (_POWER, _FLEX)]
    for mark in order.marks:
        if mark.lane == "incidents":
            begin, finish = _edges(mark, x, width)
            drawn += [
                box(begin, top, finish - begin, bottom - top, "outage", title=mark.title)
                for top, bottom in (_POWER, _FLEX)
            ]
    return drawn


def _edges(mark: Mark, x: Scale, width: float) -> tuple[float, float]:
    begin = max(_LEFT, x(mark.at))
    return begin, min(width - _RIGHT, max(begin + 3.0, x(mark.until or mark.at)))


def _axis(panel: _Panel, width: float) -> list[Markup]:
    low, high = panel.y.low, panel.y.high
    step = tick_step(low, high, 5)
    digits = max(0, -math.floor(math.log10(step)))
    drawn = []
    for value in ticks(low, high, 5):
        y = panel.y(value)
        drawn.append(line(_LEFT, y, width - _RIGHT, y, "grid" if abs(value) > step / 2 else "zero"))
        drawn.append(text(_LEFT - 8.0, y + 5.0, number(value, digits), anchor="end"))
    return drawn


def _heading(said: str, top: float) -> Markup:
    return text(_LEFT, top - 10.0, said, "heading")


def _power(panel: _Panel, points: Sequence[Point]) -> list[Markup]:
    if not points:
        middle = (panel.y.start + panel.y.end) / 2
        return [text(_LEFT + 20.0, middle, "no readings", "soft")]
    based = [p for p in points if p.baseline is not None]
    drawn = []
    if not based:
        drawn.append(text(_LEFT + 20.0, panel.y.end + 24.0, "no baseline", "soft"))
    drawn.append(step_area([
        panel.step(p.at, p.at + MINUTE_S, p.measured, p.baseline or 0.0) for p in based
    ], "moved"))  # fmt: skip
    drawn.append(_steps(panel, [(p.at, p.baseline or 0.0) for p in based], "baseline"))
    wanted = [(p.at, p.target) for p in points if p.target is not None]
    drawn.append(_steps(panel, wanted, "instructed"))
    drawn.append(_steps(panel, [(p.at, p.measured) for p in points], "measured"))
    return drawn


def _steps(panel: _Panel, rows: Sequence[tuple[float, float]], class_: str) -> Markup:
    return step_line([panel.step(at, at + MINUTE_S, value) for at, value in rows], class_)


def _flexibility(panel: _Panel, order: OrderDay) -> list[Markup]:
    drawn = []
    zero = panel.y(0.0)
    for one in order.periods:
        start, end, y = panel.x(one.start), panel.x(one.end), panel.y(one.got)
        kind = "rebound" if one.after else "delivered"
        said = f"{kind} {number(one.got)} kW, instructed {number(one.asked)} kW"
        drawn.append(box(start + 1.5, zero, end - start - 3.0, y - zero, kind, title=said))
    asked = [panel.step(one.start, one.end, one.asked) for one in order.periods if not one.after]
    drawn.append(step_line(asked, "instructed"))
    if not order.periods:
        drawn.append(text(_LEFT + 20.0, zero - 20.0, "nothing was verified", "soft"))
    return drawn


def _hours(report: Json, order: OrderDay, x: Scale) -> list[Markup]:
    first, last = order.shown
    ahead = local(report, first).utcoffset()
    drawn = []
    for at in time_ticks(first, last, 9, ahead.total_seconds() if ahead else 0.0):
        drawn += [line(x(at), top, x(at), bottom, "grid") for top, bottom in (_POWER, _FLEX)]
        drawn.append(line(x(at), _FLEX[1], x(at), _FLEX[1] + 5.0, "tick"))
        drawn.append(text(x(at), _FLEX[1] + 23.0, clock(report, at), anchor="middle"))
    return drawn


def _lanes(order: OrderDay, x: Scale, width: float) -> list[Markup]:
    drawn = []
    for index, lane in enumerate(_LANES):
        y = _LANE_TOP + index * _LANE_HEIGHT
        marks = sorted((one for one in order.marks if one.lane == lane), key=lambda one: one.at)
        drawn.append(box(_LEFT, y, width - _RIGHT - _LEFT, _LANE_HEIGHT - 4.0, "lane"))
        drawn.append(text(_LEFT - 8.0, y + 17.0, lane, anchor="end"))
        draw = _spans if lane == "incidents" else _badges
        drawn += draw(marks, x, y, width)
    return drawn


def _spans(marks: Sequence[Mark], x: Scale, y: float, width: float) -> list[Markup]:
    """Bars over their time, each with its name where there is room for it."""
    drawn, taken = [], -math.inf
    for mark in marks:
        begin, end = _edges(mark, x, width)
        drawn.append(box(begin, y, end - begin, _LANE_HEIGHT - 4.0, "incident", title=mark.title))
        long = len(mark.label) * _LETTER
        room = end + 6.0 + long < width - _RIGHT
        start, stop = (end + 6.0, end + 6.0 + long) if room else (begin - 6.0 - long, begin - 6.0)
        if start > max(taken, _LEFT):
            anchor, at = ("start", start) if room else ("end", stop)
            drawn.append(text(at, y + 17.0, mark.label, anchor=anchor))
            taken = max(stop, end)
    return drawn


def _badges(marks: Sequence[Mark], x: Scale, y: float, width: float) -> list[Markup]:
    """Numbers in time; those of the same few minutes share a badge."""
    drawn = []
    places = [x(mark.at) for mark in marks]
    groups = clusters(places, _MARK)
    limits = [*(places[group[0]] for group in groups), width - _RIGHT][1:]
    for group, after in zip(groups, limits, strict=True):
        own = [marks[index] for index in group]
        said = own[0].label if len(own) == 1 else f"{own[0].label}\N{EN DASH}{own[-1].label}"
        wide = max(_LANE_HEIGHT - 4.0, len(said) * _LETTER + 10.0)
        at = min(max(places[group[0]], _LEFT), width - _RIGHT - wide)
        kind = own[0].lane + (" bad" if any(one.bad for one in own) else "")
        corner = 3.0 if own[0].lane == "flags" else 11.0
        shape = tag(
            "rect", tag("title", "; ".join(one.title for one in own)), class_=kind,
            x=at, y=y, width=wide, height=_LANE_HEIGHT - 4.0, rx=corner,
        )  # fmt: skip
        drawn += [shape, text(at + wide / 2, y + 17.0, said, "on", "middle")]
        names = ", ".join(dict.fromkeys(one.name for one in own if one.name))
        if names and at + wide + 6.0 + len(names) * _LETTER < after:
            drawn.append(text(at + wide + 6.0, y + 17.0, names))
    return drawn
