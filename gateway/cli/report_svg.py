"""Plain SVG by hand: scales, ticks, step lines, areas and text, every value escaped.

Colours and type come from the page's style sheet by class, so that a figure follows light,
dark and print without being drawn again. No ids, no script, no reference to anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440)
"""Steps of a time axis."""
_STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_CLOSE = 1e-9


@dataclass(frozen=True)
class Scale:
    """Maps values linearly onto user units; `low` must be below `high`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value stands, in user units."""
        part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)


@dataclass(frozen=True)
class Step:
    """A value that holds from one place to another, in user units."""

    start: float
    end: float
    at: float
    base: float = 0.0
    """The other edge, where the step bounds an area."""


def span(values: Iterable[float], room: float = 0.08) -> tuple[float, float]:
    """A range that holds every value and zero, with room beyond what is not zero; never empty."""
    low = high = 0.0
    for value in values:
        low, high = min(low, value), max(high, value)
    more = (high - low) * room or 1.0
    return low - more * (low < 0), high + more * (high > 0 or low == 0)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """One to so many (three or more) multiples of 1, 2 or 5 times a power of ten, in a range."""
    step = tick_step(low, high, most)
    return [count * step for count in _multiples(low, high, step)]


def tick_step(low: float, high: float, most: int = 6) -> float:
    """The distance between those ticks."""
    # Each step is at most 2.5 times the one before: the first that is wide enough for `most`
    # of three or more is never so wide that no multiple of it lies in the range.
    smallest = 10.0 ** math.floor(math.log10((high - low) / (most + 1)))
    steps = (step * smallest for step in _STEPS)
    return next(step for step in steps if len(_multiples(low, high, step)) <= most)


def _multiples(low: float, high: float, step: float) -> range:
    return range(math.ceil(low / step - _CLOSE), math.floor(high / step + _CLOSE) + 1)


def time_ticks(low: float, high: float, most: int = 9, offset_s: float = 0.0) -> list[float]:
    """At most so many instants (Unix seconds) on round minutes of a clock ahead of UTC."""
    rough = (high - low) / (most - 1)
    whole_days = math.ceil(rough / (MINUTES[-1] * 60.0)) * MINUTES[-1]
    step = next((m for m in MINUTES if m * 60.0 >= rough), whole_days) * 60.0
    first, last = math.ceil((low + offset_s) / step), math.floor((high + offset_s) / step)
    return [count * step - offset_s for count in range(first, last + 1)]


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """An element; text and attribute values are escaped, Markup is taken as it is.

    An underscore in an attribute's name stands for a hyphen, one at its end for nothing;
    attributes that are None are left out; numbers are written short.
    """
    said = Markup().join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup().join(escape(part) for part in content)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), said, inside)  # noqa: S704 - ours


def figure(width: float, height: float, label: str, *content: Markup) -> Markup:
    """An SVG that fills the width it is given and says what it shows."""
    box = f"0 0 {short(width)} {short(height)}"
    return tag("svg", *content, viewBox=box, role="img", aria_label=label)


def text(x: float, y: float, said: str, class_: str | None = None, anchor: str = "start") -> Markup:
    """Text whose baseline is at a place; `anchor` is start, middle or end."""
    return tag("text", said, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, *, title: str = "") -> Markup:
    """A rectangle, which may have negative sides; the title shows on hover."""
    inside = (tag("title", title),) if title else ()
    x, y = min(x, x + width), min(y, y + height)
    return tag(
        "rect", *inside, x=x, y=y, width=abs(width), height=abs(height), class_=class_
    )  # fmt: skip


def step_line(steps: Sequence[Step], class_: str) -> Markup:
    """A line of steps, broken where one does not begin at the end of the one before."""
    path = []
    for run in _runs(steps):
        path.append(f"M{short(run[0].start)} {short(run[0].at)}H{short(run[0].end)}")
        path += [f"V{short(one.at)}H{short(one.end)}" for one in run[1:]]
    return tag("path", d="".join(path), class_=class_)


def step_area(steps: Sequence[Step], class_: str) -> Markup:
    """The area between steps and their bases."""
    path = []
    for run in _runs(steps):
        path.append(f"M{short(run[0].start)} {short(run[0].base)}")
        path += [f"V{short(one.at)}H{short(one.end)}" for one in run]
        path += [f"V{short(one.base)}H{short(one.start)}" for one in reversed(run)]
        path.append("Z")
    return tag("path", d="".join(path), class_=class_)


def short(value: float) -> str:
    """A number of user units: a tenth of a unit is finer than any screen shows."""
    said = f"{value:.1f}"
    return "0" if said == "-0.0" else said.removesuffix(".0")


def _runs(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps that follow one another without a gap."""
    runs: list[list[Step]] = []
    for one in steps:
        if runs and math.isclose(runs[-1][-1].end, one.start, abs_tol=0.05):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _value(value: object) -> str:
    return short(value) if isinstance(value, float) else str(value)
