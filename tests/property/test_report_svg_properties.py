"""Scales and ticks of the report's figures hold for any range; text is always escaped."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree as ET

from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.cli.report_plots import clusters
from gateway.cli.report_svg import (
    MINUTES,
    Scale,
    Step,
    figure,
    span,
    step_area,
    step_line,
    text,
    tick_step,
    ticks,
    time_ticks,
)  # fmt: skip

VALUES = st.floats(-1e6, 1e6)
RANGES = st.tuples(VALUES, VALUES).filter(lambda pair: pair[1] - pair[0] > 1e-3)
MOST = st.integers(3, 12)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


@given(RANGES, st.floats(0, 1))
def test_a_scale_keeps_ends_and_proportions(pair: tuple[float, float], part: float) -> None:
    low, high = pair
    scale = Scale(low, high, 500.0, 20.0)
    assert math.isclose(scale(low), 500.0)
    assert math.isclose(scale(high), 20.0)
    assert math.isclose(scale(low + part * (high - low)), 500.0 - part * 480.0, abs_tol=1e-3)


@given(st.lists(VALUES, max_size=20))
def test_a_span_holds_zero_and_every_value_and_is_never_empty(values: list[float]) -> None:
    low, high = span(values)
    assert low < high
    assert all(low <= value <= high for value in [0.0, *values])


@given(RANGES, MOST)
@example((-900_002.0, -500_001.0), 3)
def test_ticks_lie_inside_evenly_on_round_steps(pair: tuple[float, float], most: int) -> None:
    low, high = pair
    step = tick_step(low, high, most)
    places = ticks(low, high, most)
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - round_) for round_ in (1.0, 2.0, 5.0)) < 1e-6
    assert 1 <= len(places) <= most
    assert all(low - step * 1e-6 <= place <= high + step * 1e-6 for place in places)
    assert all(math.isclose(b - a, step, rel_tol=1e-6) for a, b in pairwise(places))


@given(
    st.integers(0, 2 * 10**9),
    st.integers(60, 4 * 10**6),
    MOST,
    st.sampled_from([0.0, 19800.0, -25200.0, 20700.0]),
)
def test_time_ticks_are_round_on_the_local_clock(
    start: int, length: int, most: int, ahead: float
) -> None:
    places = time_ticks(start, start + length, most, ahead)
    assert len(places) <= most
    assert all(start <= place <= start + length for place in places)
    assert all((place + ahead) % 60.0 == 0 for place in places)
    if len(places) > 1:
        minutes = (places[1] - places[0]) / 60.0
        assert minutes in MINUTES or minutes % MINUTES[-1] == 0


@given(st.lists(st.floats(0, 1000), max_size=40), st.floats(0.1, 100))
def test_clusters_hold_every_mark_once_and_keep_their_distance(
    places: list[float], apart: float
) -> None:
    places.sort()
    groups = clusters(places, apart)
    assert [index for group in groups for index in group] == list(range(len(places)))
    firsts = [places[group[0]] for group in groups]
    assert all(b - a >= apart for a, b in pairwise(firsts))


@given(TEXT)
def test_any_text_stays_text(said: str) -> None:
    drawn = figure(10.0, 10.0, said, text(0.0, 0.0, said))
    element = ET.fromstring(str(drawn))  # noqa: S314 - our own output
    assert element.get("aria-label") == said
    assert [child.tag for child in element] == ["text"]
    assert (element[0].text or "") == said


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99), st.booleans()), min_size=1))
def test_a_line_is_broken_at_each_gap_and_only_there(rows: list[tuple[int, int, bool]]) -> None:
    steps, at, gaps = [], 0.0, 0
    for length, value, gap in rows:
        gaps += gap and bool(steps)
        at += 5.0 * gap
        steps.append(Step(at, at + length, float(value)))
        at += length
    assume(steps)
    drawn = str(step_line(steps, "x"))
    assert drawn.count("M") == gaps + 1
    assert drawn.count("H") == len(steps)
    assert str(step_area(steps, "x")).count("Z") == gaps + 1
