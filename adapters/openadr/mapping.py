"""What setpoints and readings are in OpenADR 2.0b, without I/O.

Sign: ours is injection-positive; a 2.0b load signal and a usage report count consumption
positive. So `LOAD_DISPATCH` / `setpoint` carries `-power_kw` as `powerReal` in kW (W with
scale k), absolute: the load to be kept. A report's power is negated the same way.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from lxml import etree

from adapters.openadr.wire import EI, OADR, XCAL, Message
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import TimeMap
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

_SECOND: Final = timedelta(seconds=1)
_DURATION: Final = re.compile(r"\+?P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?|\+?P?(\d+)W")
_WATTS: Final = {
    "p": 1e-12, "n": 1e-9, "micro": 1e-6, "m": 1e-3, "c": 1e-2, "d": 1e-1,
    "none": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
}  # fmt: skip
"""Factor of each SI scale code of the 2.0b schema."""
_CONSUMPTION: Final = frozenset({"usage", "demand", "avgUsage", "avgDemand", "reading"})
_POWER: Final = "{http://docs.oasis-open.org/ns/emix/2011/06/power}"
_SCALE: Final = "{http://docs.oasis-open.org/ns/emix/2011/06/siscale}"
_EVIDENCE_BYTES: Final = 4096
_REASON_CHARS: Final = 200
_AHEAD: Final = timedelta(minutes=5)
"""How far a VEN's clock may be ahead of ours."""
_LONGEST: Final = timedelta(days=1)
"""Longest span that one mean may stand for."""


class ReportPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One data point that a VEN offers and we asked for."""

    r_id: str
    specifier_id: str
    resource_id: str
    kw_per_unit: float
    reading_type: str
    min_period_s: float


@dataclass(frozen=True)
class Defect:
    """One interval of a report that cannot be read."""

    reason: str
    evidence: bytes


def event_id(order_id: str, device_id: str) -> str:
    """The event that carries an order to a device: the same after every restart."""
    digest = hashlib.sha256(f"{order_id}\x00{device_id}".encode()).hexdigest()
    return f"evt-{digest[:32]}"


def wall_period(setpoint: Setpoint, time_map: TimeMap) -> tuple[datetime, timedelta]:
    """Wall start and duration of a setpoint's event.

    2.0b durations are whole seconds. The end is the lease, so it is exact; the start moves
    by half a second at most, and an event is at least one second long.
    """
    end = time_map.to_wall(setpoint.valid_until)
    exact = end - time_map.to_wall(setpoint.valid_from)
    duration = max(1, round(exact / _SECOND)) * _SECOND
    return end - duration, duration


def event_status(start: datetime, duration: timedelta, now: datetime, *, cancelled: bool) -> str:
    """The 2.0b event status at a wall instant; without a ramp there is no `near`."""
    if cancelled:
        return "cancelled"
    if now >= start + duration:
        return "completed"
    return "active" if now >= start else "far"


def event_document(
    setpoint: Setpoint,
    *,
    ven_id: str,
    modification: int,
    created: datetime,
    cancelled: bool,
    market_context: str,
    time_map: TimeMap,
    now: datetime,
) -> dict[str, Any]:
    """The event as openleadr's templates take it; `created` and `now` are wall time."""
    start, duration = wall_period(setpoint, time_map)
    status = event_status(start, duration, now, cancelled=cancelled)
    load_kw = 0.0 - setpoint.power_kw
    return {
        "event_descriptor": {
            "event_id": event_id(setpoint.order_id, setpoint.device_id),
            "modification_number": modification,
            "modification_date_time": created,
            "priority": 0,
            "market_context": market_context,
            "created_date_time": created,
            "event_status": status,
        },
        "active_period": {"dtstart": start, "duration": duration},
        "event_signals": [
            {
                "intervals": [{"dtstart": start, "duration": duration, "signal_payload": load_kw}],
                "signal_name": "LOAD_DISPATCH",
                "signal_type": "setpoint",
                "signal_id": setpoint.id,
                "measurement": _real_power(),
                "current_value": load_kw if status == "active" else 0.0,
            }
        ],
        "targets": [{"ven_id": ven_id}],
        "response_required": "always",
    }


def report_points(message: Message) -> list[ReportPoint]:
    """Power data points in the METADATA reports of an `oadrRegisterReport`."""
    points = []
    for report in message.body.iterfind(f"{OADR}oadrReport"):
        if report.findtext(f"{EI}reportName", "").strip() != "METADATA_TELEMETRY_USAGE":
            continue
        specifier = report.findtext(f"{EI}reportSpecifierID", "").strip()
        for description in report.iterfind(f"{OADR}oadrReportDescription"):
            point = _point(specifier, description)
            if point is not None:
                points.append(point)
    return points


def readings(
    message: Message,
    points: Mapping[str, ReportPoint],
    *,
    series: str,
    telemetry_s: float,
    time_map: TimeMap,
    now: datetime,
) -> tuple[list[Reading], list[Defect]]:
    """What an `oadrUpdateReport` says: readings in market time, and what cannot be read.

    An interval without a duration (or shorter than the second that 2.0b can express)
    stands for `telemetry_s` market seconds. `points` by rID; `now` is wall time.
    """
    good: list[Reading] = []
    bad: list[Defect] = []
    for report in message.body.iterfind(f"{OADR}oadrReport"):
        default = report.findtext(f"{XCAL}dtstart/{XCAL}date-time")
        for interval in report.iter(f"{EI}interval"):
            try:
                for r_id, value in _values(interval):
                    start, length = _wall_span(interval, default, now)
                    at, seconds = _market_span(start, length, telemetry_s, time_map)
                    power = Kw(0.0 - value * _known(points, r_id).kw_per_unit)
                    good.append(Reading(series=series, start=at, seconds=seconds, power_kw=power))
            except (ValueError, OverflowError) as error:
                bad.append(
                    Defect(str(error)[:_REASON_CHARS], etree.tostring(interval)[:_EVIDENCE_BYTES])
                )
    return good, bad


def _values(interval: Any) -> list[tuple[str, float]]:
    values = []
    for payload in interval.iterfind(f"{OADR}oadrReportPayload"):
        text = payload.findtext(f"{EI}payloadFloat/{EI}value")
        if text is None:
            raise ValueError("a payload without a number")
        value = float(text)
        if not math.isfinite(value):
            msg = f"{text.strip()[:40]} is no power"
            raise ValueError(msg)
        values.append((payload.findtext(f"{EI}rID", "").strip(), value))
    return values


def _wall_span(interval: Any, default: str | None, now: datetime) -> tuple[datetime, timedelta]:
    start = _instant(interval.findtext(f"{XCAL}dtstart/{XCAL}date-time") or default)
    length = parse_duration(interval.findtext(f"{XCAL}duration/{XCAL}duration"))
    if length > _LONGEST:
        raise ValueError("a mean over more than a day")
    if start + length > now + _AHEAD:
        raise ValueError("it ends in the future: check the VEN's clock")
    return start, length


def _market_span(
    start: datetime, length: timedelta, telemetry_s: float, time_map: TimeMap
) -> tuple[datetime, float]:
    market = time_map.to_market(start)
    if time_map.speed != 1.0:
        # the wire has microseconds of wall time: what the map multiplies is not meant
        market = _to_millisecond(market)
    return market, length.total_seconds() * time_map.speed if length else telemetry_s


def parse_duration(text: str | None) -> timedelta:
    """A determinate 2.0b duration (no years, no months). Raises ValueError."""
    if text is None:
        return timedelta(0)
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        msg = f"duration {text[:40]!r}"
        raise ValueError(msg)
    days, hours, minutes, seconds, weeks = (int(part or 0) for part in match.groups())
    try:
        return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        msg = f"duration {text[:40]!r}"
        raise ValueError(msg) from None


def _instant(text: str | None) -> datetime:
    if text is None:
        raise ValueError("an interval without a start")
    at = datetime.fromisoformat(text.strip())
    if at.tzinfo is None:
        msg = f"{text.strip()[:40]} does not say that it is UTC"
        raise ValueError(msg)
    return at.astimezone(UTC)


def _to_millisecond(at: datetime) -> datetime:
    rounded = at + timedelta(microseconds=500)
    return rounded.replace(microsecond=rounded.microsecond // 1000 * 1000)


def _known(points: Mapping[str, ReportPoint], r_id: str) -> ReportPoint:
    if r_id not in points:
        msg = f"rID {r_id[:80]!r} was not asked for"
        raise ValueError(msg)
    return points[r_id]


def _point(specifier: str, description: Any) -> ReportPoint | None:
    """The data point, or None where it is not real power in watts."""
    item = description.find(f"{_POWER}powerReal")
    report_type = description.findtext(f"{EI}reportType", "").strip()
    if item is None or report_type not in _CONSUMPTION:
        return None
    if item.findtext(f"{_POWER}itemUnits", "").strip() != "W":
        return None
    scale = item.findtext(f"{_SCALE}siScaleCode", "none").strip()
    shortest = description.findtext(f"{OADR}oadrSamplingRate/{OADR}oadrMinPeriod")
    return ReportPoint(
        r_id=description.findtext(f"{EI}rID", "").strip(),
        specifier_id=specifier,
        resource_id=description.findtext(f"{EI}reportDataSource/{EI}resourceID", "").strip(),
        kw_per_unit=_WATTS[scale] / 1000.0,
        reading_type=description.findtext(f"{EI}readingType", "").strip(),
        min_period_s=parse_duration(shortest).total_seconds(),
    )


def _real_power() -> dict[str, Any]:
    return {
        "name": "powerReal",
        "description": "RealPower",
        "unit": "W",
        "scale": "k",
        "power_attributes": {"hertz": 60, "voltage": 230, "ac": True},
    }
