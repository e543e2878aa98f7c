"""Settlement windows, verified deliveries, statement lines and the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec
from sqlalchemy import Connection, RowMapping, insert, select, update

from gateway.store.engine import from_us, to_us
from gateway.store.market import to_json
from gateway.store.tables import postings, statement_lines, windows
from marketplace_core.events import DeliveryVerified, OrderSettled, ReboundMeasured, WindowClosed
from marketplace_core.intervals import Interval
from marketplace_core.settlement.statement import Posting, StatementLine

_Delivered = DeliveryVerified | ReboundMeasured
_IN_TIME = (windows.c.end_us, windows.c.order_id, windows.c.contract_id, windows.c.start_us)
"""The same order in every database: facts about windows are journalled in it."""


class WindowRow(msgspec.Struct, frozen=True, kw_only=True):
    """One settlement period of one contract of one order."""

    order_id: str
    contract_id: str
    period: Interval
    version: int
    """Version of the newest close; 0 while open."""
    instructed_kw: float
    closed: WindowClosed | None
    delivery: DeliveryVerified | None
    """A ReboundMeasured after the order's end."""


def instruct(
    connection: Connection,
    order_id: str,
    contract_id: str,
    periods: Iterable[Interval],
    *,
    kw: float,
    span: Interval,
) -> None:
    """Call a contract for `kw` over `span`, in settlement periods that meet it.

    A period that the span meets in part is instructed the mean: what was instructed before
    stands for the part outside of it.
    """
    known = _instructed(connection, order_id, contract_id)
    for period in periods:
        common = span.overlap(period)
        share = 0.0 if common is None else common.duration / period.duration
        before = known.get(to_us(period.start), 0.0)
        mean = before * (1.0 - share) + kw * share
        if to_us(period.start) in known:
            _set_instructed(connection, order_id, contract_id, period, mean)
        else:
            _open(connection, order_id, contract_id, period, mean)


def expect(
    connection: Connection, order_id: str, contract_id: str, periods: Iterable[Interval]
) -> None:
    """Watch settlement periods in which a contract is instructed nothing: its rebound."""
    known = _instructed(connection, order_id, contract_id)
    for period in periods:
        if to_us(period.start) not in known:
            _open(connection, order_id, contract_id, period, 0.0)


def windows_open(connection: Connection) -> list[WindowRow]:
    """Windows that are not closed yet, oldest end first."""
    query = select(windows).where(windows.c.state == "open").order_by(*_IN_TIME)
    return [window_row(row) for row in connection.execute(query).mappings()]


def windows_ending_after(connection: Connection, at: datetime) -> list[WindowRow]:
    """Closed windows that late readings may still supersede."""
    query = select(windows).where(windows.c.state != "open", windows.c.end_us > to_us(at))
    rows = connection.execute(query.order_by(*_IN_TIME))
    return [window_row(row) for row in rows.mappings()]


def windows_of(connection: Connection, order_id: str) -> list[WindowRow]:
    """Every window of an order, by contract and time."""
    query = select(windows).where(windows.c.order_id == order_id)
    rows = connection.execute(query.order_by(windows.c.contract_id, windows.c.start_us))
    return [window_row(row) for row in rows.mappings()]


def end_instructions(connection: Connection, order_id: str, at: datetime) -> None:
    """Instruct nothing from `at` on: a period that it meets keeps the mean of what was asked."""
    query = select(windows).where(windows.c.order_id == order_id, windows.c.end_us > to_us(at))
    for row in connection.execute(query).mappings().all():
        length = row["end_us"] - row["start_us"]
        share = max(0, to_us(at) - row["start_us"]) / length
        connection.execute(
            update(windows)
            .where(windows.c.order_id == order_id)
            .where(windows.c.contract_id == row["contract_id"])
            .where(windows.c.start_us == row["start_us"])
            .values(instructed_kw=repr(float(row["instructed_kw"]) * share))
        )


def close_window(connection: Connection, fact: WindowClosed) -> None:
    """Keep a closed window; a higher version supersedes."""
    _update(connection, fact, state="closed", version=fact.version, closed=to_json(fact))


def record_delivery(connection: Connection, fact: DeliveryVerified) -> None:
    """Keep the newest verified delivery of a window."""
    _update(connection, fact, state="verified", delivery=to_json(fact))


def record_settlement(
    connection: Connection, settled: OrderSettled, buyer_of: dict[str, str]
) -> None:
    """Book statement lines and postings; `buyer_of` maps contract ids to buyers."""
    for line in settled.lines:
        row = {
            "id": line.id, "order_id": line.order_id, "buyer": buyer_of[line.contract_id],
            "seller": line.seller, "version": line.version, "document": to_json(line),
        }  # fmt: skip
        connection.execute(insert(statement_lines).values(row))
    for number, posting in enumerate(settled.postings):
        row = {
            "transaction_id": posting.transaction_id, "number": number,
            "order_id": settled.order_id, "document": to_json(posting),
        }  # fmt: skip
        connection.execute(insert(postings).values(row))


def lines_of(connection: Connection, order_id: str) -> list[StatementLine]:
    """Statement lines of an order, all versions."""
    query = select(statement_lines.c.document).where(statement_lines.c.order_id == order_id)
    rows = connection.execute(query.order_by(statement_lines.c.version, statement_lines.c.id))
    return [msgspec.json.decode(row.document, type=StatementLine) for row in rows]


def postings_of(connection: Connection, order_id: str) -> list[Posting]:
    """Ledger postings of an order, in booking order."""
    query = select(postings.c.document).where(postings.c.order_id == order_id)
    rows = connection.execute(query.order_by(postings.c.transaction_id, postings.c.number))
    return [msgspec.json.decode(row.document, type=Posting) for row in rows]


def _instructed(connection: Connection, order_id: str, contract_id: str) -> dict[int, float]:
    query = select(windows.c.start_us, windows.c.instructed_kw).where(
        windows.c.order_id == order_id, windows.c.contract_id == contract_id
    )
    return {row.start_us: float(row.instructed_kw) for row in connection.execute(query)}


def _open(
    connection: Connection, order_id: str, contract_id: str, period: Interval, kw: float
) -> None:
    row = {
        "order_id": order_id, "contract_id": contract_id, "start_us": to_us(period.start),
        "end_us": to_us(period.end), "version": 0, "state": "open", "instructed_kw": repr(kw),
    }  # fmt: skip
    connection.execute(insert(windows).values(row))


def _set_instructed(
    connection: Connection, order_id: str, contract_id: str, period: Interval, kw: float
) -> None:
    connection.execute(
        update(windows)
        .where(windows.c.order_id == order_id)
        .where(windows.c.contract_id == contract_id)
        .where(windows.c.start_us == to_us(period.start))
        .values(instructed_kw=repr(kw))
    )


def _update(
    connection: Connection, fact: WindowClosed | DeliveryVerified, **values: str | int
) -> None:
    connection.execute(
        update(windows)
        .where(windows.c.order_id == fact.order_id)
        .where(windows.c.contract_id == fact.contract_id)
        .where(windows.c.start_us == to_us(fact.period.start))
        .values(values)
    )


def window_row(row: RowMapping) -> WindowRow:
    """A row of the table as what it stands for."""
    closed, delivery = row["closed"], row["delivery"]
    return WindowRow(
        order_id=row["order_id"],
        contract_id=row["contract_id"],
        period=Interval(from_us(row["start_us"]), from_us(row["end_us"])),
        version=row["version"],
        instructed_kw=float(row["instructed_kw"]),
        closed=None if closed is None else msgspec.json.decode(closed, type=WindowClosed),
        delivery=None if delivery is None else msgspec.json.decode(delivery, type=_Delivered),
    )
