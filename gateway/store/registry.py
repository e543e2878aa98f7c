"""The asset register: who may have what measured and driven."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Table, delete, insert, select

from gateway.store.among import among
from gateway.store.market import to_json
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.tables import asset_devices, asset_meters, assets
from gateway.store.viewer import Viewer
from marketplace_core.errors import NotFoundError, RejectedError
from marketplace_core.registry.asset import Asset


def asset(connection: Connection, viewer: Viewer, asset_id: str) -> Asset:
    """One asset of the viewer; NotFoundError else."""
    query = select(assets.c.document).where(
        assets.c.id == asset_id, viewer.of(assets.c.organisation)
    )
    text = connection.scalar(query)
    if text is None:
        raise NotFoundError("asset", asset_id)
    return msgspec.json.decode(text, type=Asset)


def assets_page(
    connection: Connection, viewer: Viewer, page: Page, feeder: str | None = None
) -> Slice[Asset]:
    """Assets of the viewer, by id."""
    query = select(assets.c.id, assets.c.document).where(viewer.of(assets.c.organisation))
    if feeder is not None:
        query = query.where(assets.c.feeder == feeder)
    found = rows_of(connection, query, page, assets.c.id)
    decoded = [msgspec.json.decode(row.document, type=Asset) for row in found.items]
    return Slice(decoded, found.following)


def every_asset(connection: Connection, viewer: Viewer) -> list[Asset]:
    """All assets of the viewer, by id: for an export."""
    query = select(assets.c.document).where(viewer.of(assets.c.organisation))
    rows = connection.execute(query.order_by(assets.c.id))
    return [msgspec.json.decode(row.document, type=Asset) for row in rows]


def devices_of(connection: Connection, viewer: Viewer) -> set[str]:
    """Devices that belong to assets of the viewer."""
    query = select(asset_devices.c.device_id).where(viewer.of(asset_devices.c.organisation))
    return set(connection.scalars(query))


def meters_of(connection: Connection, viewer: Viewer) -> set[str]:
    """Meters of the viewer's assets."""
    query = select(asset_meters.c.series).where(viewer.of(asset_meters.c.organisation))
    return set(connection.scalars(query))


def meters_of_assets(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Meters of some assets, by name; unknown assets are left out."""
    pairs = _pairs(connection, asset_meters.c.asset_id, asset_meters.c.series, ids)
    return sorted(series for _, series in pairs)


def owners_of(connection: Connection, devices: Collection[str]) -> dict[str, str]:
    """Organisations whose assets some devices belong to, by device."""
    return dict(
        _pairs(connection, asset_devices.c.device_id, asset_devices.c.organisation, devices)
    )


def is_series_of(connection: Connection, viewer: Viewer, series: str) -> bool:
    """Whether a series of readings is a device or a meter of the viewer."""
    for column, owner in (
        (asset_devices.c.device_id, asset_devices.c.organisation),
        (asset_meters.c.series, asset_meters.c.organisation),
    ):
        if connection.scalar(select(column).where(column == series, viewer.of(owner)).limit(1)):
            return True
    return False


def conflicts(
    connection: Connection, wanted: Sequence[Asset], owners: Mapping[str, str]
) -> dict[str, RejectedError]:
    """Why some of the assets cannot be registered, by asset id.

    `owners` names the organisations that the configuration binds devices to.
    """
    ids = dict(_pairs(connection, assets.c.id, assets.c.organisation, [a.id for a in wanted]))
    names = {name for each in wanted for name in (*each.devices, each.meter)}
    bound: dict[str, set[str]] = {}
    for device, owner in (
        *_pairs(connection, asset_devices.c.device_id, asset_devices.c.organisation, names),
        *_pairs(connection, asset_meters.c.series, asset_meters.c.organisation, names),
    ):
        bound.setdefault(device, set()).add(owner)
    serves = dict(_pairs(connection, asset_devices.c.device_id, asset_devices.c.asset_id, names))
    moving = {each.id for each in wanted}
    found: dict[str, RejectedError] = {}
    for each in wanted:
        error = _taken_by_others(each, ids, bound, owners) or _serves_another(each, serves, moving)
        if error is not None:
            found[each.id] = error
    return found


def save_assets(connection: Connection, rows: Sequence[Asset]) -> None:
    """Register assets without conflicts; what is known is replaced, bindings included."""
    ids = [each.id for each in rows]
    for table, column in (
        (assets, assets.c.id), (asset_devices, asset_devices.c.asset_id),
        (asset_meters, asset_meters.c.asset_id),
    ):  # fmt: skip
        connection.execute(delete(table).where(among(connection, column, ids)))
    _insert(connection, assets, [
        {"id": each.id, "organisation": each.organisation, "feeder": each.feeder,
         "document": to_json(each)} for each in rows
    ])  # fmt: skip
    _insert(connection, asset_devices, [
        {"device_id": device, "asset_id": each.id, "organisation": each.organisation}
        for each in rows for device in each.devices
    ])  # fmt: skip
    _insert(connection, asset_meters, [
        {"series": each.meter, "asset_id": each.id, "organisation": each.organisation}
        for each in rows
    ])  # fmt: skip


def _taken_by_others(
    asset: Asset,
    ids: Mapping[str, str],
    bound: Mapping[str, set[str]],
    owners: Mapping[str, str],
) -> RejectedError | None:
    own = asset.organisation
    if ids.get(asset.id, own) != own:
        return RejectedError(
            f"asset {asset.id} is registered by another organisation", field="id",
            rule="asset ids are unique", remedy="choose another id",
        )  # fmt: skip
    for field, names in (("devices", asset.devices), ("meter", (asset.meter,))):
        for name in names:
            if bound.get(name, set()) - {own} or owners.get(name, own) != own:
                return RejectedError(
                    f"{name} is bound to another organisation", field=field,
                    rule="a device or meter belongs to one organisation",
                    remedy="ask the operator when it is yours",
                )  # fmt: skip
    return None


def _serves_another(
    asset: Asset, serves: Mapping[str, str], moving: Collection[str]
) -> RejectedError | None:
    for device in asset.devices:
        holder = serves.get(device, asset.id)
        if holder != asset.id and holder not in moving:
            return RejectedError(
                f"{device} belongs to asset {holder}", field="devices",
                rule="a device belongs to one asset", remedy=f"take it from {holder} first",
            )  # fmt: skip
    return None


def _pairs(
    connection: Connection, key: Column[Any], value: Column[Any], names: Iterable[str]
) -> Iterator[tuple[str, str]]:
    chosen = among(connection, key, list(names))
    for row in connection.execute(select(key, value).where(chosen)):
        yield row[0], row[1]


def _insert(connection: Connection, table: Table, rows: Sequence[dict[str, str]]) -> None:
    if rows:
        connection.execute(insert(table), rows)
