"""Turns a report into what is shown: headline, figures, checks and stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.cli.report_tables import NONE, Json, TableView, hours, local, number, tables


@dataclass(frozen=True)
class Tile:
    """One figure of the header."""

    label: str
    value: str
    detail: str


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
class PageView:
    """Everything that the page and the terminal show, plots apart."""

    title: str
    subtitle: str
    verdict: str
    holds: bool
    tiles: Sequence[Tile]
    checks: Sequence[Check]
    stages: Sequence[Sequence[Stage]]
    tables: Mapping[str, TableView]
    footer: Sequence[str]


def view(report: Json) -> PageView:
    """What is shown of a report; never fails on a section that is missing or empty."""
    checks = [Check(name, bool(holds)) for name, holds in report.get("checks", {}).items()]
    failed = sum(not check.holds for check in checks)
    verdict = "no check was stated"
    if checks:
        verdict = f"all {len(checks)} checks hold"
    if failed:
        verdict = f"{failed} of {len(checks)} checks fail"
    return PageView(
        title=_title(report),
        subtitle=_subtitle(report),
        verdict=verdict,
        holds=bool(checks) and not failed,
        tiles=_tiles(report),
        checks=sorted(checks, key=lambda check: check.holds),
        stages=[_stages(report, order) for order in report.get("orders", ())],
        tables=tables(report),
        footer=_footer(report),
    )


def _title(report: Json) -> str:
    said = [
        f"{number(order.get('kw', order.get('need_kw')))} kW {order['direction']}"
        for order in report.get("orders", ())
    ]
    feeder = report.get("market", {}).get("feeder")
    where = f" on feeder {feeder}" if feeder else ""
    return (" and ".join(said) or "No order") + where


def _subtitle(report: Json) -> str:
    parts = [f"order {order['id']}" for order in report.get("orders", ())]
    market = report.get("market", {})
    spans = [
        f"{local(report, order['start']):%H:%M} to {local(report, order['end']):%H:%M}"
        for order in report.get("orders", ())
        if order.get("start") and order.get("end")
    ]
    if market.get("day"):
        day = datetime.fromisoformat(market["day"])
        parts.append(f"{day:%A} {day.day} {day:%B %Y}" + (f", {', '.join(spans)}" if spans else ""))
    if market.get("timezone"):
        parts.append(str(market["timezone"]))
    return " · ".join(parts)


def _tiles(report: Json) -> list[Tile]:
    period = hours(report)
    windows = report.get("windows", ())
    asked = sum(w["instructed_kw"] for w in windows) * period
    got = sum(w["delivered_kw"] or 0.0 for w in windows) * period
    counts = report.get("setpoints", {})
    amounts = _amounts(report.get("statement", ()))
    journal = report.get("journal", {})
    share = f"{got / asked:.0%} of what was instructed" if asked else "nothing was instructed"
    tiles = [
        Tile("Instructed", f"{number(asked)} kWh", f"{len(windows)} settlement windows"),
        Tile("Delivered", f"{number(got)} kWh", share),
        Tile("Paid to sellers", amounts or NONE, f"{len(report.get('statement', ()))} lines"),
        Tile(
            "Setpoints applied",
            f"{counts.get('applied', 0)} of {counts.get('issued', 0)}",
            ", ".join(
                f"{counts.get(name, 0)} {name}"
                for name in ("refused", "unreachable", "unconfirmed")
            ),
        ),
        Tile(
            "Journal",
            "verified" if journal.get("verified") else "NOT verified",
            f"{journal.get('events', 0)} facts in the chain",
        ),
    ]
    return tiles + _truth_tiles(report.get("truth") or {})


def _truth_tiles(truth: Json) -> list[Tile]:
    if truth.get("error_pct") is None:
        return []
    detail = (
        f"settled {number(truth.get('settled_kwh'))} kWh, "
        f"true {number(truth.get('delivered_kwh'))} kWh"
    )
    return [Tile("Settlement error", f"{number(truth['error_pct'])} %", detail)]


def _stages(report: Json, order: Json) -> list[Stage]:
    """First time and count of each kind of fact, in the order they came."""
    first: dict[str, tuple[str, int]] = {}
    for event in order.get("events", ()):
        at, count = first.get(event["kind"], (f"{local(report, event['at']):%H:%M:%S}", 0))
        first[event["kind"]] = (at, count + 1)
    return [Stage(_spaced(kind), at, count) for kind, (at, count) in first.items()]


def _spaced(kind: str) -> str:
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in kind).strip()
    return words[:1].upper() + words[1:]


def _amounts(lines: Iterable[Json]) -> str:
    totals: dict[str, Decimal] = {}
    for line in lines:
        totals.setdefault(line["currency"], Decimal())
        totals[line["currency"]] += Decimal(str(line["amount"]))
    return ", ".join(f"{number(total, 2)} {currency}" for currency, total in totals.items())


def _footer(report: Json) -> list[str]:
    journal, market = report.get("journal", {}), report.get("market", {})
    parts = [f"journal head {journal['head_hash']}"] if journal.get("head_hash") else []
    if "seed" in report:
        parts.append(f"seed {report['seed']}")
    if market.get("speed"):
        parts.append(f"{market['speed']:g} market seconds per second")
    if market.get("grid_minutes"):
        parts.append(f"settlement periods of {market['grid_minutes']} minutes")
    if market.get("history_rows"):
        parts.append(f"{market['history_rows']:,} rows of meter history")
    if "quarantined" in report:
        parts.append(f"{report['quarantined']} messages in quarantine")
    return parts
