"""Figures to the letter, with coordinates that can be worked out by hand."""

from __future__ import annotations

from gateway.cli.report_bars import against
from gateway.cli.report_svg import Scale, Step, box, figure, line, step_area, step_line, text, ticks

# A range of -5 to 15 kW over 100 units, upwards: one kW is 5 units, zero stands at 75.
POWER = Scale(-5.0, 15.0, 100.0, 0.0)
PLOT = (
    '<svg viewBox="0 0 120 100" role="img" aria-label="a &lt;plot&gt;">'
    '<line x1="0" y1="100" x2="120" y2="100" class="grid"></line>'
    '<line x1="0" y1="75" x2="120" y2="75" class="grid"></line>'
    '<line x1="0" y1="50" x2="120" y2="50" class="grid"></line>'
    '<line x1="0" y1="25" x2="120" y2="25" class="grid"></line>'
    '<line x1="0" y1="0" x2="120" y2="0" class="grid"></line>'
    '<path d="M0 75V25H20V37.5H40V75H20V75H0Z" class="moved"></path>'
    '<path d="M0 25H20V37.5H40M60 90H80" class="measured"></path>'
    '<rect x="60" y="75" width="20" height="15" class="rebound"><title>3 kW</title></rect>'
    '<text x="2" y="12.3" text-anchor="end">5 &amp; 10</text>'
    "</svg>"
)
BAR = (
    '<svg viewBox="0 0 170 26" role="img" aria-label="25.0 against 50.0">'
    '<line x1="2" y1="0" x2="2" y2="26" class="zero"></line>'
    '<rect x="2" y="6" width="41.5" height="14" class="short"></rect>'
    '<line x1="85" y1="1" x2="85" y2="25" class="instructed"></line>'
    "</svg>"
)


def test_a_tiny_plot() -> None:
    steps = [Step(0.0, 20.0, POWER(10.0), POWER(0.0)), Step(20.0, 40.0, POWER(7.5), POWER(0.0))]
    grid = [line(0.0, POWER(v), 120.0, POWER(v), "grid") for v in ticks(-5.0, 15.0, 5)]
    drawn = figure(
        120.0, 100.0, "a <plot>", *grid, step_area(steps, "moved"),
        step_line([*steps, Step(60.0, 80.0, POWER(-3.0))], "measured"),
        box(60.0, POWER(0.0), 20.0, POWER(-3.0) - POWER(0.0), "rebound", title="3 kW"),
        text(2.0, 12.34, "5 & 10", anchor="end"),
    )  # fmt: skip
    assert str(drawn) == PLOT


def test_a_bar_against_its_target() -> None:
    assert str(against(25.0, 50.0, (0.0, 100.0), "short")) == BAR
