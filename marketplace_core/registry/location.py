"""The network tree: country, region, zone, substation, feeder."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec

from marketplace_core.errors import RejectedError


class Level(enum.Enum):
    """How high a place stands in the tree, the highest first."""

    COUNTRY = "country"
    REGION = "region"
    ZONE = "zone"
    SUBSTATION = "substation"
    FEEDER = "feeder"


_ORDER = list(Level)


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """One place of the network."""

    id: str
    name: str
    level: Level
    parent: str | None = None
    """Id of the place it belongs to; None for a country."""


def validate_locations(known: Mapping[str, Location], placed: Iterable[Location]) -> None:
    """Check places before they are drawn into the tree. Raises RejectedError at the first fault.

    `known` is the tree so far; a place that is known is moved or renamed. Because a parent
    always stands on a higher level, the tree cannot close into a ring.
    """
    after = {**known, **{each.id: each for each in placed}}
    for each in after.values():
        if each.parent is None:
            if each.level is not Level.COUNTRY:
                raise RejectedError(
                    f"{each.level.value} {each.id} belongs nowhere", field="parent",
                    rule="only a country stands alone", remedy="name the place it belongs to",
                )  # fmt: skip
            continue
        parent = after.get(each.parent)
        if parent is None:
            raise RejectedError(
                f"{each.id} belongs to {each.parent}, which is not in the tree", field="parent",
                rule="a place belongs to a place of the tree", remedy="draw the parent first",
            )  # fmt: skip
        if _ORDER.index(parent.level) >= _ORDER.index(each.level):
            raise RejectedError(
                f"{each.level.value} {each.id} cannot belong to {parent.level.value} {parent.id}",
                field="parent", rule="a parent stands higher in the tree",
            )  # fmt: skip


def feeders_below(tree: Iterable[Location], root: str) -> set[str]:
    """Ids of the feeders at or below a place; a name outside of the tree is its own feeder."""
    children: dict[str, list[Location]] = {}
    found: set[str] = set()
    levels: dict[str, Level] = {}
    for each in tree:
        levels[each.id] = each.level
        if each.parent is not None:
            children.setdefault(each.parent, []).append(each)
    if levels.get(root, Level.FEEDER) is Level.FEEDER:
        return {root}
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.level is Level.FEEDER:
                found.add(child.id)
            else:
                waiting.append(child.id)
    return found
