"""Whether the feeder or organisation that somebody names is one that is known here."""

from __future__ import annotations

from sqlalchemy import Connection, Select, select

from gateway.store.tables import asset_devices, assets, locations, organisations


def feeder_is_known(connection: Connection, feeder: str) -> bool:
    """Whether assets or the network tree know a feeder."""
    return _any(
        connection,
        select(assets.c.id).where(assets.c.feeder == feeder),
        select(locations.c.id).where(locations.c.id == feeder),
    )


def organisation_is_known(connection: Connection, organisation: str) -> bool:
    """Whether an organisation was ever let in, or has devices."""
    return _any(
        connection,
        select(organisations.c.id).where(organisations.c.id == organisation),
        select(asset_devices.c.device_id).where(asset_devices.c.organisation == organisation),
    )


def _any(connection: Connection, *queries: Select[tuple[str]]) -> bool:
    return any(connection.scalar(query.limit(1)) is not None for query in queries)
