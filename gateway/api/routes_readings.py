"""Meter readings: JSON and CSV in, one's own series out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import ValidationError

from gateway.api.auth import Caller
from gateway.api.idempotency import KEYED, once_elsewhere
from gateway.api.instants import Instant
from gateway.api.paging import Cursor, page_of, with_next
from gateway.api.problems import faults_of
from gateway.api.schemas import ReadingBody
from gateway.api.services import Services, Using, json_response
from gateway.store.engine import from_us, to_us
from gateway.store.paging import Page, Slice, checked
from gateway.store.registry import is_series_of, meters_of
from marketplace_core.errors import NotFoundError, RecordError, RequestError
from marketplace_core.intervals import Interval
from marketplace_core.verification.bulk import parse_readings
from marketplace_core.verification.reading import Reading

router = APIRouter(prefix="/v1/readings", tags=["readings"])
_BATCH = 2_000
_MOST_ROWS = 20_000
_MAX_ERRORS_SHOWN = 1_000
_MOST_SHOWN = 10_000
_LONGEST = timedelta(days=92)


def _rows_of(
    limit: Annotated[int, Query(ge=1, le=_MOST_SHOWN, description="Rows on a page")] = _MOST_SHOWN,
    cursor: Cursor = None,
) -> Page:
    return page_of(limit, cursor)


def _span_of(start: Instant, end: Instant) -> Interval:
    if not timedelta(0) < end - start <= _LONGEST:
        raise RequestError(
            "the span is empty or too long", field="end",
            rule=f"`end` is after `start` and within {_LONGEST.days} days of it",
        )  # fmt: skip
    return Interval(start, end)


@router.post("", openapi_extra=KEYED)
async def store_readings(
    request: Request,
    services: Using,
    caller: Caller,
    body: Annotated[list[dict[str, Any]], Body(max_length=_MOST_ROWS)],
) -> Response:
    """Store readings of the caller's own meters; a bad row is reported and the rest goes in.

    The answer comes once every good row is committed; sending rows again changes nothing.
    Rows are `{"series", "start", "seconds", "power_kw"}`, numbered from 1. `duplicates` counts
    good rows whose series has a reading of that start: the first one stands.
    """
    caller.require("seller")

    async def work() -> dict[str, object]:
        meters = await services.read(lambda c: meters_of(c, caller.viewer))
        rows = [_row(number, row, meters) for number, row in enumerate(body, start=1)]
        return await _store(services, iter(rows), "record")

    return await once_elsewhere(request, services, caller, work)


@router.post(
    "/import", openapi_extra={**KEYED, "requestBody": {"content": {"text/csv": {"schema": {}}}}}
)
async def import_readings(request: Request, services: Using, caller: Caller) -> Response:
    """Import meter history as CSV; a bad row is reported and the rest goes in.

    The answer comes once every good row is committed.
    """
    caller.require("seller")

    async def work() -> dict[str, object]:
        meters = await services.read(lambda c: meters_of(c, caller.viewer))
        text = (await request.body()).decode("utf-8-sig", errors="replace")
        return await _store(services, parse_readings(text.splitlines(), meters), "line")

    return await once_elsewhere(request, services, caller, work)


@router.get("/{series}")
async def read_series(
    series: str,
    *,
    span: Annotated[Interval, Depends(_span_of)],
    request: Request,
    services: Using,
    caller: Caller,
    page: Annotated[Page, Depends(_rows_of)],
) -> Response:
    """Readings of one of the caller's own meters or devices, by start.

    Rows are `[start, seconds, power_kw]`; more fit on a page than of other lists.
    """
    caller.require_reader("seller", "operator")
    viewer = caller.viewer
    own = viewer.everything or await services.read(lambda c: is_series_of(c, viewer, series))
    if not own:
        raise NotFoundError("series", series)
    found = await services.reads.compute(lambda: _rows(services, series, span, page))
    shown = json_response({"series": series, "rows": found.items})
    return with_next(shown, request, found.following)


def _rows(
    services: Services, series: str, span: Interval, page: Page
) -> Slice[tuple[float, float, float]]:
    """One page of a series' readings; the key is the microsecond that the last one began at."""
    after = int(checked(page.after, [int])[0]) if page.after else -1
    if after >= to_us(span.end):
        return Slice([], None)
    since = from_us(after) if after > to_us(span.start) else span.start
    data = services.readings.between(series, since, span.end)
    columns = (data.start_s.tolist(), data.seconds.tolist(), data.power_kw.tolist())
    rows = [row for row in zip(*columns, strict=True) if _began_us(row) > after or not page.after]
    following = (_began_us(rows[page.limit - 1]),) if len(rows) > page.limit else None
    return Slice(rows[: page.limit], following)


def _began_us(row: tuple[float, float, float]) -> int:
    return round(row[0] * 1e6)


async def _store(
    services: Services, parsed: Iterator[Reading | RecordError], unit: str
) -> dict[str, object]:
    accepted, duplicates, errors = 0, 0, list[RecordError]()
    while chunk := list(islice(parsed, _BATCH)):
        good = [row for row in chunk if isinstance(row, Reading)]
        errors.extend(row for row in chunk if isinstance(row, RecordError))
        fresh = await _store_new(services, good)
        accepted += fresh
        duplicates += len(good) - fresh
    shown = [
        {unit: e.line, "field": e.field, "error": e.message, "rule": e.rule, "remedy": e.remedy}
        for e in errors[:_MAX_ERRORS_SHOWN]
    ]
    return {"accepted": accepted, "duplicates": duplicates, "rejected": len(errors),
            "errors": shown}  # fmt: skip


async def _store_new(services: Services, rows: list[Reading]) -> int:
    """Store those whose series has no reading of that start; how many they were."""
    keys = {(row.series, row.start): row for row in reversed(rows)}  # the first one stands
    known = await services.reads.compute(lambda: services.readings.stored(list(keys)))
    fresh = sorted(
        (row for key, row in keys.items() if key not in known), key=lambda row: row.start
    )
    services.metrics.duplicates.inc(len(rows) - len(fresh))
    await services.ingest.store(fresh)
    return len(fresh)


def _row(number: int, row: dict[str, Any], meters: set[str]) -> Reading | RecordError:
    try:
        reading = ReadingBody.model_validate(row).reading()
    except ValidationError as error:
        fault = faults_of(error.errors())[0]
        return RecordError(
            "the reading is malformed", line=number, field=fault["field"], rule=fault["rule"]
        )
    if reading.series not in meters:
        return RecordError(
            f"{reading.series!r} is not a meter of yours", line=number, field="series",
            rule="a seller sends readings of its own meters", remedy="register the asset first",
        )  # fmt: skip
    return reading
