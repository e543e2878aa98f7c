"""The report's plots, as SVG that stands inside the page."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator

from gateway.cli.report_tables import Json, contracts, local, plain

_T = TypeVar("_T")
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.parse_math": False,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": "#3e4c59",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_MEASURED, _BASELINE, _TARGET, _GOOD, _BAD = "#0b4f8a", "#7b8794", "#d55e00", "#7cc4a4", "#f0a58f"
_SELLERS = ("#0b7285", "#e0a100", "#7a5195", "#4f772d", "#b5446e", "#2f4b7c")
"""Distinct for readers with any colour vision; the legend keeps their order."""


@dataclass(frozen=True)
class Plot:
    """One figure of the page."""

    title: str
    description: str
    svg: Markup


@dataclass(frozen=True)
class _Trace:
    """Minute means of one seller or of all, in kW."""

    at: list[float]
    """Starts of the minutes, in Unix minutes."""
    measured: list[float]
    baseline: list[float | None]
    instructed: list[float | None]


def plots(report: Json) -> list[Plot]:
    """The whole order first, then one figure per contract."""
    groups = contracts(report)
    if not groups:
        return []
    traces = _traces(report)
    figures = [_order_plot(report, groups, traces)]
    figures += [
        _contract_plot(report, seller, windows, traces.get(seller), index)
        for index, (seller, windows) in enumerate(groups)
    ]
    return figures


def _order_plot(
    report: Json, groups: Sequence[tuple[str, list[Json]]], traces: Mapping[str, _Trace]
) -> Plot:
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "order"}):
        figure, left, right = _canvas(4.3)
        everything = _summed([traces[s] for s, _ in groups if s in traces])
        _draw_trace(left, report, everything)
        left.set_title("All meters of the order")
        _draw_stack(right, report, groups)
        right.set_title("Delivered per settlement period")
        svg = _svg(figure, "The whole order: power at the meters and delivered flexibility")
    text = (
        "Left: mean power of all meters each minute, against the sum of the contracts' baselines "
        "and the power that the order asks for. Right: what each contract delivered in each "
        "settlement period, stacked, and the line of what was instructed."
    )
    return Plot("The whole order", text, svg)


def _contract_plot(
    report: Json, seller: str, windows: Sequence[Json], trace: _Trace | None, index: int
) -> Plot:
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"contract-{index}"}):
        figure, left, right = _canvas(3.1)
        _draw_trace(left, report, trace)
        left.set_title("At the meter")
        _draw_bars(right, report, windows, _SELLERS[index % len(_SELLERS)])
        right.set_title("Instructed and delivered")
        svg = _svg(figure, f"{plain(seller)}: power at the meter and delivered flexibility")
    methods = sorted({str(w.get("baseline_method") or "") for w in windows} - {""})
    text = f"Baseline: {', '.join(methods)}." if methods else ""
    return Plot(plain(seller), text, svg)


def _canvas(height: float) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(13.0, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.75, 1.0))
    return figure, left, right


def _draw_trace(axes: Axes, report: Json, trace: _Trace | None) -> None:
    axes.set_ylabel("kW, injection positive")
    if trace is None or not trace.at:
        axes.text(0.5, 0.5, "no readings", transform=axes.transAxes, ha="center", color=_BASELINE)
        axes.set_xticks([])
        return
    sign = _sign(report)
    known = [i for i, base in enumerate(trace.baseline) if base is not None]
    at = [trace.at[i] for i in known]
    base = [trace.baseline[i] or 0.0 for i in known]
    measured = [trace.measured[i] for i in known]
    target = [b + sign * (trace.instructed[i] or 0.0) for i, b in zip(known, base, strict=True)]
    if at:
        axes.axvspan(at[0], at[-1] + 1.0, color="#f1f5f9", zorder=0)
    good = [sign * (m - b) >= 0 for m, b in zip(measured, base, strict=True)]
    bad = [not one for one in good]
    fill: dict[str, Any] = {"step": "post", "alpha": 0.6, "linewidth": 0}
    axes.fill_between(
        _closed(at),
        _last(base),
        _last(measured),
        where=_last(good),
        color=_GOOD,
        label="delivered",
        **fill,
    )
    if any(bad):
        label = "moved the other way"
        axes.fill_between(
            _closed(at),
            _last(base),
            _last(measured),
            where=_last(bad),
            color=_BAD,
            label=label,
            **fill,
        )
    axes.step(
        _closed(at),
        _last(base),
        where="post",
        color=_BASELINE,
        linestyle="--",
        lw=1.8,
        label="baseline",
    )
    axes.step(
        _closed(at),
        _last(target),
        where="post",
        color=_TARGET,
        linestyle=":",
        lw=2.2,
        label="instructed",
    )
    axes.step(
        _closed(trace.at),
        _last(trace.measured),
        where="post",
        color=_MEASURED,
        lw=1.9,
        label="measured",
    )
    axes.axhline(0, color="#9aa5b1", lw=0.8)
    _time_axis(axes, report)
    axes.margins(x=0.01, y=0.12)
    _legend(axes, 5)


def _closed(at: Sequence[float]) -> list[float]:
    """Starts of minutes, and the end of the last one."""
    return [*at, *(start + 1.0 for start in at[-1:])]


def _last(values: Sequence[_T]) -> list[_T]:
    """Values with the last one held to the end of its minute."""
    return [*values, *values[-1:]]


def _draw_stack(axes: Axes, report: Json, groups: Sequence[tuple[str, list[Json]]]) -> None:
    width = _period(report)
    above: dict[float, float] = defaultdict(float)
    below: dict[float, float] = defaultdict(float)
    asked: dict[float, float] = defaultdict(float)
    handles = []
    for index, (seller, windows) in enumerate(groups):
        color = _SELLERS[index % len(_SELLERS)]
        handles.append(Patch(color=color, label=plain(seller)))
        for one in windows:
            start, kw = _minutes(report, one["start"]), one["delivered_kw"] or 0.0
            side = above if kw >= 0 else below
            axes.bar(start, kw, width * 0.86, bottom=side[start], align="edge", color=color)
            side[start] += kw
            asked[start] += one["instructed_kw"]
    line = _draw_asked(axes, asked, width)
    axes.set_ylabel("kW in the direction asked")
    _time_axis(axes, report)
    _legend(axes, 2, [*handles, *line])


def _draw_bars(axes: Axes, report: Json, windows: Sequence[Json], color: str) -> None:
    width = _period(report)
    asked = {_minutes(report, one["start"]): float(one["instructed_kw"]) for one in windows}
    for one in windows:
        start = _minutes(report, one["start"])
        if one["baseline_kw"] is None:
            axes.text(start + width / 2, 0, "no baseline", rotation=90, ha="center", va="bottom")
            continue
        axes.bar(start, one["delivered_kw"] or 0.0, width * 0.86, align="edge", color=color)
    line = _draw_asked(axes, asked, width)
    axes.set_ylabel("kW in the direction asked")
    _time_axis(axes, report)
    _legend(axes, 2, [Patch(color=color, label="delivered"), *line])


def _draw_asked(axes: Axes, asked: Mapping[float, float], width: float) -> list[Any]:
    drawn: list[Any] = []
    for start, kw in asked.items():
        drawn = axes.plot(
            [start, start + width * 0.86], [kw, kw], color=_TARGET, lw=2.4, label="instructed"
        )
    axes.axhline(0, color="#9aa5b1", lw=0.8)
    axes.margins(y=0.18)
    return drawn


def _time_axis(axes: Axes, report: Json) -> None:
    """Quarter hours of market-local time."""
    axes.xaxis.set_major_locator(MultipleLocator(15.0))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda minutes, _: f"{local(report, minutes * 60.0):%H:%M}")
    )


def _minutes(report: Json, at: str | float) -> float:
    return local(report, at).timestamp() / 60.0


def _legend(axes: Axes, columns: int, handles: list[Any] | None = None) -> None:
    place: dict[str, Any] = {
        "loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": columns, "fontsize": 9.5,
    }  # fmt: skip
    if handles is None:
        axes.legend(**place)
    else:
        axes.legend(handles=handles, **place)


def _traces(report: Json) -> dict[str, _Trace]:
    found: dict[str, _Trace] = {}
    points = [(_minutes(report, point["at"]), point) for point in report.get("trace", ())]
    for at, point in sorted(points, key=lambda pair: pair[0]):
        trace = found.setdefault(str(point["seller"]), _Trace([], [], [], []))
        trace.at.append(at)
        trace.measured.append(float(point["measured_kw"]))
        trace.baseline.append(point["baseline_kw"])
        trace.instructed.append(point["instructed_kw"])
    return found


def _summed(traces: Sequence[_Trace]) -> _Trace | None:
    """The sum over sellers, at the minutes that all of them have."""
    if not traces:
        return None
    rows = [dict(zip(t.at, range(len(t.at)), strict=True)) for t in traces]
    common = sorted(set(rows[0]).intersection(*rows[1:]))
    total = _Trace([], [], [], [])
    for at in common:
        picked = [(trace, row[at]) for trace, row in zip(traces, rows, strict=True)]
        bases = [trace.baseline[i] for trace, i in picked]
        known = [base for base in bases if base is not None]
        total.at.append(at)
        total.measured.append(sum(trace.measured[i] for trace, i in picked))
        total.baseline.append(sum(known) if len(known) == len(bases) else None)
        total.instructed.append(sum(trace.instructed[i] or 0.0 for trace, i in picked))
    return total


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as an element: no prolog, no metadata, with a name for screen readers."""
    buffer = io.StringIO()
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=empty)
    text = buffer.getvalue()
    body = text[text.index("<svg") + len("<svg") :]
    head = Markup('<svg role="img" aria-label="{}"').format(label)
    return head + Markup(body)  # noqa: S704 - matplotlib escapes its own text


def _sign(report: Json) -> int:
    directions = {order["direction"] for order in report.get("orders", ())}
    return -1 if directions == {"DOWN"} else 1


def _period(report: Json) -> float:
    """Length of a settlement period in minutes."""
    return float(report.get("market", {}).get("grid_minutes", 60))
