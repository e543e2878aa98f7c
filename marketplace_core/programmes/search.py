"""Finding programmes by words and by what a portfolio is."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from marketplace_core.programmes.programme import Programme
from marketplace_core.units import Direction


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to; an empty field narrows nothing."""

    text: str = ""
    """Words, each of which stands in name, operator, region, notes or id; case does not matter."""
    country: str = ""
    operator: str = ""
    technology: str = ""
    """A programme that takes anything fits every technology."""
    direction: Direction | None = None
    kw: float | None = None
    """Power that has to lie within the programme's sizes."""


def search(programmes: Iterable[Programme], wanted: Wanted) -> list[Programme]:
    """Programmes that fit, by country and id."""
    found = [each for each in programmes if _fits(each, wanted)]
    return sorted(found, key=lambda each: (each.country, each.id))


def _fits(one: Programme, wanted: Wanted) -> bool:
    words = f"{one.id} {one.name} {one.operator} {one.region} {one.notes}".casefold()
    technology = wanted.technology
    return (
        all(word in words for word in wanted.text.casefold().split())
        and wanted.country in {"", one.country}
        and wanted.operator.casefold() in one.operator.casefold()
        and (not technology or not one.technologies or technology in one.technologies)
        and wanted.direction in {None, one.direction}
        and (wanted.kw is None or one.minimum_kw <= wanted.kw <= (one.maximum_kw or float("inf")))
    )
