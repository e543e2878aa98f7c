"""How the report writes numbers, shares, instants and names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Json = Mapping[str, Any]
NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def local(report: Json, at: str | float | datetime) -> datetime:
    """An instant (ISO text, Unix seconds or datetime) in the market's time zone, else in UTC."""
    return datetime.fromtimestamp(seconds(at), UTC).astimezone(_zone(report))


def seconds(at: str | float | datetime) -> float:
    """An instant as Unix seconds."""
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    return at.timestamp() if isinstance(at, datetime) else float(at)


def _zone(report: Json) -> ZoneInfo:
    try:
        return ZoneInfo(str(report.get("market", {}).get("timezone", "UTC")))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def clock(report: Json, at: str | float | None, *, exact: bool = False) -> str:
    """Market time of day; with seconds when `exact`; a dash for None."""
    if at is None:
        return NONE
    return f"{local(report, at):%H:%M:%S}" if exact else f"{local(report, at):%H:%M}"


def number(value: Any, digits: int = 1) -> str:
    """A number with a real minus sign; a dash for None; what is no number as it stands."""
    if value is None:
        return NONE
    try:
        text = f"{Decimal(str(value)):,.{digits}f}"
    except (InvalidOperation, ValueError):
        return str(value)
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: Any, digits: int = 1) -> str:
    """A number that says plus when it is positive."""
    text = number(value, digits)
    positive = value is not None and text[0].isdigit() and text.strip("0.,") != ""
    return f"+{text}" if positive else text


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent; a dash when there is no whole."""
    return number(100.0 * part / whole, 0) + " %" if whole else NONE


def hours(report: Json) -> float:
    """Length of a settlement period in hours."""
    return float(report.get("market", {}).get("grid_minutes") or 60) / 60.0


def seller_name(report: Json, seller: Any) -> str:
    """An organisation as people say it: its own name, else its id in words."""
    names = {str(one["id"]): str(one.get("name") or "") for one in report.get("sellers", ())}
    bare = str(seller).removeprefix("org_")
    said = bare.replace("_", " ").title() if bare != str(seller) else bare
    return names.get(str(seller)) or said


def device_name(device: Any) -> str:
    """A device's id without what all of them share."""
    return str(device).removeprefix("dev_")


def words(name: Any) -> str:
    """A machine's word as text: underscores are spaces."""
    return str(name).replace("_", " ")


def price_unit(report: Json) -> str:
    """The unit of bid prices."""
    return f"{currency(report)}/MWh" if currency(report) else "per MWh"


def currency(report: Json) -> str:
    """The market's currency; empty where none is said."""
    return str(report.get("market", {}).get("currency") or "")


def event_name(report: Json, order: Any) -> str:
    """An order as people call it: by its event, else by its id."""
    events = {str(one["id"]): one.get("event") for one in report.get("orders", ())}
    event = events.get(str(order))
    return words(event) if event else str(order or NONE)
