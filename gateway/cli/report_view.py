"""Turns a report into what is shown: verdict, figures, orders, tables and statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from markupsafe import Markup

from gateway.cli import report_setpoints, report_tables
from gateway.cli.report_bars import merit_order
from gateway.cli.report_day import Bid, OrderDay, order_days, uncalled_bids
from gateway.cli.report_faults import FALSE_ALARM, MATCHED, Finding, count, findings
from gateway.cli.report_plots import order_plot
from gateway.cli.report_statement import Statement, money, statement
from gateway.cli.report_tables import TableView
from gateway.cli.report_words import (
    NONE,
    Json,
    clock,
    number,
    share,
    signed,
    words,
)  # fmt: skip

_COLUMN, _WHOLE = 770.0, 1560.0
"""Width of a plot in one of two columns, and of a plot alone, in user units."""


@dataclass(frozen=True)
class Tile:
    """One figure of the header; `bad` when it asks for attention."""

    label: str
    value: str
    detail: str
    bad: bool = False


@dataclass(frozen=True)
class Check:
    """One claim of the run."""

    name: str
    holds: bool


@dataclass(frozen=True)
class Stage:
    """One kind of fact of an order."""

    name: str
    at: str
    count: int


@dataclass(frozen=True)
class OrderView:
    """One order, or one auction that no order followed (without a plot)."""

    title: str
    subtitle: str
    plot: Markup | None
    strip: Markup | None
    awards: TableView
    deliveries: TableView | None
    windows: TableView | None
    stages: Sequence[Stage]


@dataclass(frozen=True)
class PageView:
    """Everything that the page and the terminal show."""

    title: str
    subtitle: str
    verdict: str
    holds: bool
    tiles: Sequence[Tile]
    checks: Sequence[Check]
    """Those that fail first."""
    orders: Sequence[OrderView]
    tables: dict[str, TableView]
    statement: Statement
    footer: Sequence[str]


def view(report: Json) -> PageView:
    """What is shown of a report; never fails on a section that is missing or empty."""
    checks = [Check(name, bool(holds)) for name, holds in report.get("checks", {}).items()]
    failed = sum(not check.holds for check in checks)
    found = findings(report)
    days = order_days(report, found)
    return PageView(
        title=_title(report), subtitle=_subtitle(report, days),
        verdict=_verdict(len(checks), failed), holds=bool(checks) and not failed,
        tiles=_tiles(report, days, found),
        checks=sorted(checks, key=lambda check: check.holds),
        orders=_orders(report, days),
        tables={
            "setpoints": report_setpoints.setpoints(report),
            "exceptions": report_setpoints.exceptions(report),
            "devices": report_setpoints.devices(report),
            "flags": report_tables.flags(report, found),
            "happenings": report_tables.happenings(report),
            "rebound": report_tables.rebound(report, days),
            "truth": report_tables.truth(report),
            "ledger": report_tables.ledger(report),
            "refused": report_tables.refused_rows(report),
        },
        statement=statement(report, days),
        footer=_footer(report),
    )  # fmt: skip


def _verdict(checks: int, failed: int) -> str:
    if failed:
        return f"{failed} of {checks} checks fail"
    return f"All {checks} checks hold" if checks else "No check was stated"


def _title(report: Json) -> str:
    said = [
        f"{number(order.get('kw', order.get('need_kw')))} kW {order.get('direction', '')}"
        for order in report.get("orders", ())
    ]
    feeder = report.get("market", {}).get("feeder")
    return (" and ".join(said) or "No order") + (f" on feeder {feeder}" if feeder else "")


def _subtitle(report: Json, days: Sequence[OrderDay]) -> str:
    market, parts = report.get("market", {}), []
    if market.get("day"):
        day = date.fromisoformat(market["day"])
        parts.append(f"{day:%A} {day.day} {day:%B %Y}")
    parts += [_span(report, day) for day in days]
    if market.get("timezone"):
        parts.append(str(market["timezone"]))
    return " · ".join(parts)


def _span(report: Json, day: OrderDay) -> str:
    return f"{clock(report, day.start)} to {clock(report, day.end)}"


def _orders(report: Json, days: Sequence[OrderDay]) -> list[OrderView]:
    waiting = uncalled_bids(report)
    width = _COLUMN if len(days) + len(waiting) > 1 else _WHOLE
    sellers = [str(one["id"]) for one in report.get("sellers", ())]
    sellers += [str(award["seller"]) for award in report.get("awards", ())]
    tones = {seller: index for index, seller in enumerate(dict.fromkeys(sellers))}

    def strip(bids: Sequence[Bid]) -> Markup | None:
        return merit_order(report, bids, tones, width) if bids else None

    called = [
        OrderView(
            title=_order_title(day), subtitle=_order_line(report, day),
            plot=order_plot(report, day, width), strip=strip(day.bids),
            awards=report_tables.awards(report, day.bids),
            deliveries=report_tables.deliveries(report, day),
            windows=report_tables.windows(report, day), stages=_stages(report, day.id),
        )
        for day in days
    ]  # fmt: skip
    uncalled = [
        OrderView(
            title=f"{words(event).capitalize()}: nobody was called",
            subtitle="The auction was cleared; no order followed.", plot=None, strip=strip(bids),
            awards=report_tables.awards(report, bids), deliveries=None, windows=None, stages=(),
        )
        for event, bids in waiting.items()
    ]  # fmt: skip
    return called + uncalled


def _order_title(day: OrderDay) -> str:
    said = f"{number(day.kw)} kW {day.direction}"
    return f"{words(day.event).capitalize()}: {said}" if day.event else said


def _order_line(report: Json, day: OrderDay) -> str:
    asked = sum(one.asked_kwh for one in day.deliveries)
    got = sum(one.got_kwh for one in day.deliveries)
    parts = [_span(report, day), day.state]
    if asked:
        parts.insert(1, f"delivered {number(got)} of {number(asked)} kWh ({share(got, asked)})")
    return " · ".join(part for part in parts if part)


def _stages(report: Json, order_id: str) -> list[Stage]:
    """First time and count of each kind of fact, in the order they came."""
    order = next(one for one in report["orders"] if str(one["id"]) == order_id)
    times: dict[str, list[str]] = defaultdict(list)
    for event in order.get("events", ()):
        times[str(event["kind"])].append(event["at"])
    return [
        Stage(_spaced(kind), clock(report, own[0], exact=True), len(own))
        for kind, own in times.items()
    ]


def _spaced(kind: str) -> str:
    said = "".join(f" {c.lower()}" if c.isupper() else c for c in kind).strip()
    return said[:1].upper() + said[1:]


def _tiles(report: Json, days: Sequence[OrderDay], found: Sequence[Finding]) -> list[Tile]:
    asked = sum(one.asked_kwh for day in days for one in day.deliveries)
    got = sum(one.got_kwh for day in days for one in day.deliveries)
    lines = report.get("statement", ())
    journal = report.get("journal", {})
    tiles = [
        Tile("Delivered", f"{number(got)} kWh",
             f"{share(got, asked)} of {number(asked)} kWh instructed" if asked
             else "nothing was instructed"),
        Tile("Paid to sellers", money(lines) or NONE, f"{len(lines)} statement lines"),
        *_truth_tiles(report.get("truth") or {}),
        *_fault_tiles(report, found),
        _setpoint_tile(report.get("setpoints", {})),
    ]  # fmt: skip
    if journal:
        said = "verified" if journal.get("verified") else "NOT verified"
        facts = f"{journal.get('events', 0)} facts in the chain"
        tiles.append(Tile("Journal", said, facts, bad=not journal.get("verified")))
    return tiles


def _truth_tiles(truth: Json) -> list[Tile]:
    if truth.get("error_pct") is None:
        return []
    detail = (
        f"settled {number(truth.get('settled_kwh'))}, true {number(truth.get('delivered_kwh'))} kWh"
    )
    if truth.get("abs_error_pct") is not None:
        detail = f"net; sellers' errors without signs {number(truth['abs_error_pct'])} %; {detail}"
    return [Tile("Settlement error", f"{signed(truth['error_pct'])} %", detail)]


def _fault_tiles(report: Json, found: Sequence[Finding]) -> list[Tile]:
    truth = report.get("truth") or {}
    if "injected" not in truth:
        return [Tile("Flags", str(len(found)), "not judged")] if found else []
    injected, missed = len(truth["injected"]), len(truth.get("misses", ()))
    alarms = count(found, FALSE_ALARM)
    caught = sum(one.verdict == MATCHED and one.injected is not None for one in found)
    detail = f"{missed} missed, {alarms} false {'alarm' if alarms == 1 else 'alarms'}"
    return [Tile("Faults flagged", f"{caught} of {injected}", detail, bad=bool(missed or alarms))]


def _setpoint_tile(counts: Json) -> Tile:
    applied, issued = counts.get("applied", 0), counts.get("issued", 0)
    rest = [
        f"{counts[name]} {name}"
        for name in ("refused", "unreachable", "unconfirmed")
        if counts.get(name)
    ]
    said = ", ".join(rest) or ("none refused" if issued else "none was issued")
    return Tile("Setpoints applied", f"{applied} of {issued}", said)


def _footer(report: Json) -> list[str]:
    journal, market = report.get("journal", {}), report.get("market", {})
    parts = [f"order {order['id']}" for order in report.get("orders", ())]
    if journal.get("head_hash"):
        parts.append(f"journal head {journal['head_hash']}")
    if "seed" in report:
        parts.append(f"seed {report['seed']}")
    if report.get("transport"):
        parts.append(f"transport {report['transport']}")
    if market.get("speed"):
        parts.append(f"{market['speed']:g} market seconds per second")
    if market.get("grid_minutes"):
        parts.append(f"settlement periods of {market['grid_minutes']} minutes")
    if market.get("history_rows"):
        parts.append(f"{market['history_rows']:,} rows of meter history")
    if "quarantined" in report:
        parts.append(f"{report['quarantined']} messages in quarantine")
    if "dead_letters" in report:
        parts.append(f"{report['dead_letters']} dead letters")
    return parts
