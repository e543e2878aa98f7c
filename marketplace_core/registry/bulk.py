"""Assets as CSV: one row is one asset, one bad row harms no other.

Columns: `id,feeder,technology,devices,meter,measurement_point,up_kw,down_kw`; several
device ids of one asset are separated by `;`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from typing import Final

from marketplace_core.csv_rows import read_rows
from marketplace_core.errors import RecordError, RejectedError
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.registry.rules import validate_assets
from marketplace_core.units import Kw

COLUMNS: Final = (
    "id", "feeder", "technology", "devices", "meter", "measurement_point", "up_kw", "down_kw",
)  # fmt: skip
_LONGEST: Final = 64
"""Characters of an id."""
_MOST_KW: Final = 1e6
_ALLOWED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-")


def parse_assets(
    lines: Iterable[str], organisation: str
) -> Iterator[tuple[int, Asset] | RecordError]:
    """Yield each row's line number and asset, or what is wrong with it.

    Raises:
        RecordError: the header is wrong, so no row can be read.
    """
    ids: set[str] = set()
    devices: dict[str, str] = {}
    for row in read_rows(lines, COLUMNS):
        if isinstance(row, RecordError):
            yield row
            continue
        line, values = row
        try:
            asset = _asset(values, line, organisation)
            _first(asset, ids, devices, line)
        except RecordError as error:
            yield error
        else:
            yield line, asset


def write_assets(assets: Iterable[Asset]) -> str:
    """The CSV that `parse_assets` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for each in assets:
        writer.writerow((
            each.id, each.feeder, each.technology, ";".join(each.devices), each.meter,
            each.measurement_point.value, repr(float(each.up_kw)), repr(float(each.down_kw)),
        ))  # fmt: skip
    return text.getvalue()


def _asset(row: list[str], line: int, organisation: str) -> Asset:
    cells = dict(zip(COLUMNS, (cell.strip() for cell in row), strict=True))
    for field in ("id", "feeder", "technology", "meter"):
        _name(cells[field], line, field)
    devices = tuple(part.strip() for part in cells["devices"].split(";"))
    for device in devices:
        _name(device, line, "devices")
    asset = Asset(
        id=cells["id"],
        organisation=organisation,
        feeder=cells["feeder"],
        technology=cells["technology"],
        devices=devices,
        meter=cells["meter"],
        measurement_point=_point(cells["measurement_point"], line),
        up_kw=_kw(cells["up_kw"], line, "up_kw"),
        down_kw=_kw(cells["down_kw"], line, "down_kw"),
    )
    try:
        validate_assets(organisation, [asset])
    except RejectedError as error:
        raise RecordError(
            error.message, line=line, field=error.field, rule=error.rule, remedy=error.remedy
        ) from error
    return asset


def _first(asset: Asset, ids: set[str], devices: dict[str, str], line: int) -> None:
    """Refuse what an earlier row of the same file has taken; else note it."""
    if asset.id in ids:
        raise RecordError(
            f"{asset.id} occurs twice", line=line, field="id", rule="asset ids are unique",
            remedy="keep one of the rows",
        )  # fmt: skip
    for device in asset.devices:
        if device in devices:
            raise RecordError(
                f"{device} belongs to {devices[device]}", line=line, field="devices",
                rule="a device belongs to one asset",
            )  # fmt: skip
    ids.add(asset.id)
    devices |= dict.fromkeys(asset.devices, asset.id)


def _name(text: str, line: int, field: str) -> None:
    if not 0 < len(text) <= _LONGEST or not set(text) <= _ALLOWED:
        raise RecordError(
            f"{text[:80]!r}", line=line, field=field,
            rule=f"1 to {_LONGEST} letters, digits, or any of _.:-",
        )  # fmt: skip


def _point(text: str, line: int) -> MeasurementPoint:
    try:
        return MeasurementPoint(text)
    except ValueError as error:
        points = ", ".join(point.value for point in MeasurementPoint)
        raise RecordError(
            f"{text[:80]!r}", line=line, field="measurement_point", rule=f"one of {points}"
        ) from error


def _kw(text: str, line: int, field: str) -> Kw:
    try:
        value = float(text or "0")
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MOST_KW:
        raise RecordError(
            f"{text[:80]!r}", line=line, field=field, rule=f"a number from 0 to {_MOST_KW:g}"
        )
    return Kw(value)
