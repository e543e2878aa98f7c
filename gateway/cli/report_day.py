"""Reads a report into what is shown of each order: bids, deliveries, points and marks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from gateway.cli.report_faults import MISSED, Finding, findings
from gateway.cli.report_words import Json, clock, hours, number, seconds, words

MINUTE_S = 60.0
_LEAD_S = 1800.0
_REBOUND_S = 3600.0
_ENDS = {"uplink_mended": "uplink_lost", "gateway_started": "gateway_killed"}
"""The incident that ends another one."""
_PER_MWH = {"kWh": Decimal(1000), "MWh": Decimal(1)}


@dataclass(frozen=True)
class Bid:
    """A bid as it was cleared."""

    rank: int | None
    """Its place in the merit order; None when it was rejected."""
    seller: str
    kw: float
    price: str
    """Per MWh."""
    accepted: bool
    reason: str


@dataclass(frozen=True)
class Delivery:
    """What one contract was asked for and delivered in one order."""

    contract: str
    seller: str
    rank: int | None
    """The bid that it came from, where the statement's price says which."""
    windows: Sequence[Json]
    rebound: Sequence[Json]
    period_h: float

    @property
    def asked_kwh(self) -> float:
        """Instructed energy."""
        return sum(one["instructed_kw"] or 0.0 for one in self.windows) * self.period_h

    @property
    def got_kwh(self) -> float:
        """Delivered energy; a window without a baseline delivers nothing."""
        return sum(one["delivered_kw"] or 0.0 for one in self.windows) * self.period_h

    @property
    def rebound_kwh(self) -> float:
        """Energy after the order in the order's direction; negative is taken back."""
        return sum(one["delivered_kw"] or 0.0 for one in self.rebound) * self.period_h

    @property
    def coverage(self) -> float:
        """Least share of a window that readings covered."""
        return min((one["coverage"] or 0.0 for one in self.windows), default=0.0)

    @property
    def short_periods(self) -> int:
        """Settlement periods that delivered less than was instructed."""
        return sum(
            (one["delivered_kw"] or 0.0) < (one["instructed_kw"] or 0.0) for one in self.windows
        )


@dataclass(frozen=True)
class Period:
    """A settlement period of all contracts of an order; kW."""

    start: float
    end: float
    asked: float
    got: float
    after: bool
    """After the order: rebound."""


@dataclass(frozen=True)
class Point:
    """A minute of all meters of an order; kW, injection positive."""

    at: float
    measured: float
    baseline: float | None
    target: float | None
    """Baseline plus what was asked for, in its direction."""


@dataclass(frozen=True)
class Mark:
    """Something at a time: an incident, a revision, or a flag by its number."""

    lane: str
    at: float
    until: float | None
    label: str
    title: str
    name: str = ""
    """Said beside the label where there is room."""
    bad: bool = False


@dataclass(frozen=True)
class OrderDay:
    """Everything that is shown of one order."""

    id: str
    event: str
    direction: str
    kw: float
    state: str
    start: float
    end: float
    bids: Sequence[Bid]
    deliveries: Sequence[Delivery]
    periods: Sequence[Period]
    points: Sequence[Point]
    marks: Sequence[Mark]

    @property
    def shown(self) -> tuple[float, float]:
        """The time that its plot spans, in Unix seconds."""
        times = [point.at for point in self.points] + [period.end for period in self.periods]
        first = min([self.start - _LEAD_S, *times])
        return first, max([self.end, *(at + MINUTE_S for at in times)])


def order_days(report: Json, found: Sequence[Finding] | None = None) -> list[OrderDay]:
    """Every order that has an interval, as it came; `found` spares matching the flags again."""
    known = findings(report) if found is None else found
    return [
        _order_day(report, order, known)
        for order in report.get("orders", ())
        if order.get("start") and order.get("end")
    ]


def uncalled_bids(report: Json) -> dict[str, list[Bid]]:
    """Bids of auctions that no order followed, by event."""
    called = {str(order["id"]) for order in report.get("orders", ())}
    events: dict[str, list[Json]] = defaultdict(list)
    for award in report.get("awards", ()):
        if str(award.get("order", "")) not in called:
            events[str(award.get("event") or "auction")].append(award)
    return {event: _ranked(awards) for event, awards in events.items()}


def shortfalls(report: Json) -> list[Json]:
    """Revisions of every order with the order's event, in order of time."""
    rows = [
        {**revision, "event": order.get("event") or order["id"]}
        for order in report.get("orders", ())
        for revision in order.get("revisions", ())
    ]
    return sorted(rows, key=lambda row: seconds(row["at"]))


def incidents(report: Json) -> list[Mark]:
    """What was done to the gateway: beginnings joined with their ends."""
    open_: dict[str, float] = {}
    marks = []
    for one in report.get("incidents", ()):
        kind, at = str(one["kind"]), seconds(one["at"])
        begun = open_.pop(_ENDS.get(kind, ""), None)
        if begun is not None:
            marks.append(_incident(report, _ENDS[kind], begun, at))
        elif kind in _ENDS.values():
            open_[kind] = at
        else:
            marks.append(_incident(report, kind, at, None))
    marks += [_incident(report, kind, at, None) for kind, at in open_.items()]
    return sorted(marks, key=lambda mark: mark.at)


def _incident(report: Json, kind: str, at: float, until: float | None) -> Mark:
    spoken = clock(report, at) + (f" to {clock(report, until)}" if until else "")
    return Mark("incidents", at, until, f"{words(kind)} {spoken}", spoken, name=words(kind))


def _order_day(report: Json, order: Json, found: Sequence[Finding]) -> OrderDay:
    own = str(order["id"])
    sign = 1.0 if order.get("direction") == "UP" else -1.0
    bids = _ranked(a for a in report.get("awards", ()) if str(a.get("order", own)) == own)
    bare = OrderDay(
        id=own, event=str(order.get("event") or ""), direction=str(order.get("direction", "")),
        kw=float(order.get("kw") or order.get("need_kw") or 0.0),
        state=str(order.get("state", "")),
        start=seconds(order["start"]), end=seconds(order["end"]), bids=bids,
        deliveries=_deliveries(report, own, bids), periods=_periods(report, own),
        points=_points(report, own, sign), marks=(),
    )  # fmt: skip
    return replace(bare, marks=_marks(report, order, found, bare.shown))


def _ranked(awards: Iterable[Json]) -> list[Bid]:
    """Accepted bids by price, then those that were rejected."""
    rows = sorted(awards, key=lambda one: (not one["accepted"], _decimal(one["price"])))
    return [
        Bid(
            rank=place if one["accepted"] else None, seller=str(one["seller"]),
            kw=float(one["kw"] or 0.0), price=str(one["price"]),
            accepted=bool(one["accepted"]), reason=str(one["reason"]),
        )
        for place, one in enumerate(rows, 1)
    ]  # fmt: skip


def _deliveries(report: Json, order: str, bids: Sequence[Bid]) -> list[Delivery]:
    windows, rebound = (
        _by_contract(report.get(name, ()), order) for name in ("windows", "rebound")
    )
    prices = {
        str(line["contract"]): _decimal(line["price"]) * _PER_MWH.get(str(line["unit"]), Decimal())
        for line in report.get("statement", ())
        if str(line.get("order", order)) == order and "contract" in line
    }
    rows = [
        Delivery(
            contract, str(own[0]["seller"]), _rank(bids, own[0], prices.get(contract)),
            own, rebound.get(contract, ()), hours(report),
        )
        for contract, own in windows.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row.rank or len(bids) + 1, row.seller, row.contract))


def _rank(bids: Sequence[Bid], window: Json, price: Decimal | None) -> int | None:
    """The only accepted bid of this seller at this price."""
    fitting = [
        bid.rank for bid in bids
        if bid.accepted and bid.seller == str(window["seller"]) and _decimal(bid.price) == price
    ]  # fmt: skip
    return fitting[0] if len(fitting) == 1 else None


def _by_contract(windows: Iterable[Json], order: str) -> Mapping[str, list[Json]]:
    rows: dict[str, list[Json]] = defaultdict(list)
    for one in windows:
        if str(one.get("order", order)) == order:
            rows[str(one["contract"])].append(one)
    return {
        contract: sorted(own, key=lambda one: seconds(one["start"]))
        for contract, own in rows.items()
    }


def _periods(report: Json, order: str) -> list[Period]:
    sums: dict[tuple[float, bool], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name in ("windows", "rebound"):
        for one in report.get(name, ()):
            if str(one.get("order", order)) == order:
                own = sums[seconds(one["start"]), name == "rebound"]
                own[0] += one["instructed_kw"] or 0.0
                own[1] += one["delivered_kw"] or 0.0
    length = hours(report) * 3600.0
    return [
        Period(start, start + length, asked, got, after)
        for (start, after), (asked, got) in sorted(sums.items())
    ]


def _points(report: Json, order: str, sign: float) -> list[Point]:
    """Sums over contracts, only of minutes in which each of them was measured."""
    rows: dict[float, list[Json]] = defaultdict(list)
    for one in report.get("trace", ()):
        if str(one.get("order", order)) == order:
            rows[float(one["at"])].append(one)
    whole = max((len(own) for own in rows.values()), default=0)
    return [_point(at, own, sign) for at, own in sorted(rows.items()) if len(own) == whole]


def _point(at: float, rows: Sequence[Json], sign: float) -> Point:
    measured = sum(one["measured_kw"] for one in rows)
    bases = [one["baseline_kw"] for one in rows if one["baseline_kw"] is not None]
    if len(bases) < len(rows):
        return Point(at, measured, None, None)
    asked = sum(one["instructed_kw"] or 0.0 for one in rows)
    target = sum(bases) + sign * asked if asked else None
    return Point(at, measured, sum(bases), target)


def _marks(
    report: Json, order: Json, found: Sequence[Finding], shown: tuple[float, float]
) -> list[Mark]:
    marks = incidents(report)
    marks += [
        Mark("revisions", seconds(one["at"]), None, number(one["revision"], 0),
             f"revision {one['revision']}: {one['reason']}")
        for one in order.get("revisions", ())
    ]  # fmt: skip
    marks += [
        Mark("flags", one.at, None, str(one.number),
             f"{one.number}: {words(one.kind)}, {one.device}, {one.verdict}",
             name=words(one.kind), bad=one.verdict == MISSED)
        for one in found
    ]  # fmt: skip
    first, last = shown
    return [one for one in marks if one.at < last and (one.until or one.at) >= first]


def _decimal(value: object) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal()
