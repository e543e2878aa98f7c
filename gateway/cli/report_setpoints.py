"""Setpoints as three facts: commanded, acknowledged, measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from gateway.cli.report_tables import Column, TableView
from gateway.cli.report_words import (
    NONE,
    Json,
    device_name,
    event_name,
    number,
    seller_name,
    signed,
    words,
)  # fmt: skip

_NEAR_KW = 0.5
_NEAR_SHARE = 0.1
"""A measured power this near its setpoint, in kW or as a part of it, follows it."""
_NAMED = 12
"""Exceptions named one by one; more are counted."""


def setpoints(report: Json) -> TableView:
    """Commanded, acknowledged and measured: sums per order, seller and protocol."""
    columns = (
        Column("Order"), Column("Seller"), Column("Protocol"), Column("Devices", numeric=True),
        Column("Applied", numeric=True), Column("Commanded kW", numeric=True),
        Column("Read back kW", numeric=True), Column("Measured kW", numeric=True),
    )  # fmt: skip
    groups: dict[tuple[str, str, str], list[Json]] = defaultdict(list)
    for one in report.get("devices", ()):
        key = (event_name(report, one.get("order")), str(one["seller"]), str(one["protocol"]))
        groups[key].append(one)
    rows = [
        (
            event, seller_name(report, seller), protocol, str(len(own)),
            str(sum(one["acknowledged"] == "applied" for one in own)),
            _sum(own, "setpoint_kw"), _sum(own, "read_back_kw"), _sum(own, "measured_kw"),
        )
        for (event, seller, protocol), own in groups.items()
    ]  # fmt: skip
    note = (
        "Last setpoint of each device; injection positive. Commanded is what was asked, applied "
        "what the device acknowledged, read back what it says it was told, measured its meter."
    )
    return TableView("Setpoints: commanded, acknowledged, measured", columns, rows, note)


def exceptions(report: Json) -> TableView:
    """Devices whose last setpoint was not applied, or is not what the meter shows.

    Of a limit only a breach counts.
    """
    columns = (
        Column("Order"), Column("Device"), Column("Commanded kW", numeric=True),
        Column("Measured kW", numeric=True), Column("What", wide=True),
    )  # fmt: skip
    odd = [(one, said) for one in report.get("devices", ()) if (said := _exception(one))]
    rows = [
        (
            event_name(report, one.get("order")), device_name(one["device"]),
            number(one["setpoint_kw"], 2), number(one["measured_kw"], 2), said,
        )
        for one, said in odd[:_NAMED]
    ]  # fmt: skip
    more = f"{len(odd) - _NAMED} more in the list of devices." if len(odd) > _NAMED else ""
    return TableView("Devices that did not follow their setpoint", columns, rows, more)


def _exception(one: Json) -> str:
    if one["acknowledged"] != "applied":
        return words(one["acknowledged"])
    if one["measured_kw"] is None:
        return "no reading while it stood"
    off = one["measured_kw"] - one["setpoint_kw"]
    near = max(_NEAR_KW, _NEAR_SHARE * abs(one["setpoint_kw"]))
    if abs(off) <= near or _within_limit(one):
        return ""
    return f"{signed(off, 2)} kW off"


def _within_limit(one: Json) -> bool:
    """A limit bounds consumption or injection: to stay below it is to keep it."""
    if one.get("control") != "limit":
        return False
    limit, measured = one["setpoint_kw"], one["measured_kw"]
    side = limit or one.get("reference_kw") or 0.0  # a limit of zero bounds what it had before
    return bool(side and (measured >= limit if side < 0 else measured <= limit))


def devices(report: Json) -> TableView:
    """Every device's last setpoint."""
    columns = (
        Column("Order"), Column("Device"), Column("Protocol"), Column("Seller"),
        Column("Reference kW", numeric=True), Column("Commanded kW", numeric=True),
        Column("Acknowledged"), Column("Read back kW", numeric=True),
        Column("Measured kW", numeric=True), Column("Lease s", numeric=True),
    )  # fmt: skip
    rows = [
        (
            event_name(report, one.get("order")), device_name(one["device"]),
            str(one["protocol"]), seller_name(report, one["seller"]),
            number(one["reference_kw"], 2), number(one["setpoint_kw"], 2),
            str(one["acknowledged"]), number(one["read_back_kw"], 2),
            number(one["measured_kw"], 2), number(one["lease_s"], 0),
        )
        for one in report.get("devices", ())
    ]  # fmt: skip
    return TableView(f"All {len(rows)} setpoints, device by device", columns, rows)


def _sum(rows: Iterable[Json], key: str) -> str:
    known = [one[key] for one in rows if one.get(key) is not None]
    return number(sum(known)) if known else NONE
