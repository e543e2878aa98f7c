"""The network tree, and what stands where in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec
from sqlalchemy import Connection, delete, insert, select

from gateway.store.market import to_json
from gateway.store.tables import assets, locations
from gateway.store.viewer import Viewer
from marketplace_core.registry.asset import Asset
from marketplace_core.registry.location import Location


def tree(connection: Connection) -> dict[str, Location]:
    """Every place of the network by id: the tree is public."""
    rows = connection.execute(select(locations.c.document).order_by(locations.c.id))
    found = (msgspec.json.decode(row.document, type=Location) for row in rows)
    return {each.id: each for each in found}


def place(connection: Connection, placed: Iterable[Location]) -> None:
    """Draw places into the tree; a known one is moved or renamed."""
    for each in placed:
        connection.execute(delete(locations).where(locations.c.id == each.id))
        row = {"id": each.id, "parent": each.parent, "document": to_json(each)}
        connection.execute(insert(locations).values(row))


def assets_on(connection: Connection, viewer: Viewer, feeders: Collection[str]) -> list[Asset]:
    """Assets on some feeders that are the viewer's, by id."""
    query = select(assets.c.document).where(
        assets.c.feeder.in_(feeders), viewer.of(assets.c.organisation)
    )
    rows = connection.execute(query.order_by(assets.c.id))
    return [msgspec.json.decode(row.document, type=Asset) for row in rows]


def feeders_with_assets(connection: Connection, viewer: Viewer) -> set[str]:
    """Feeders on which the viewer has assets, whether the tree knows them or not."""
    query = select(assets.c.feeder).where(viewer.of(assets.c.organisation)).distinct()
    return set(connection.scalars(query))
