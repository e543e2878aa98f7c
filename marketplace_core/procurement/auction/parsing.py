"""An instance from a document (decoded JSON), checked field by field."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from marketplace_core.errors import RequestError
from marketplace_core.procurement.auction.instance import Instance, Offer
from marketplace_core.procurement.need import Pricing

MOST_BIDS: Final = 20_000
MOST_WINDOWS: Final = 10_000
MOST_ENTRIES: Final = 10_000_000
"""Bids times windows."""
MOST_FAULTS: Final = 20
"""So many are said; the rest is counted."""
LONGEST_NAME: Final = 200
LARGEST: Final = 1e9
"""Of kW, prices and hours."""
_INSTANCE: Final = ("pricing", "need_kw", "hours", "max_share", "price_cap", "bids")
_BID: Final = (
    "id", "seller", "kw", "min_kw", "price_per_mwh", "divisible", "exclusive_group", "requires",
)  # fmt: skip


class Parsed:
    """What was read: the instance, or everything that is wrong with it."""

    def __init__(self) -> None:
        self.instance: Instance | None = None
        self.faults: list[RequestError] = []
        self.ignored: list[str] = []
        """Fields that are not known and nobody's misspelling."""

    def fault(self, field: str, what: str, rule: str, remedy: str) -> None:
        """Note a fault."""
        self.faults.append(RequestError(what, field=field, rule=rule, remedy=remedy))


def parse_instance(document: object) -> Parsed:
    """Check a document and make an instance of it; `faults` is empty if that was possible."""
    parsed = Parsed()
    if not isinstance(document, Mapping):
        parsed.fault("", "the instance is not an object", "an instance is one JSON object",
                     "see docs/auction.md")  # fmt: skip
        return parsed
    _known(parsed, document, _INSTANCE, "")
    pricing = document.get("pricing")
    names = [each.value for each in Pricing]
    if pricing not in names:
        parsed.fault("pricing", f"pricing is {pricing!r}", f"one of {' and '.join(names)}",
                     "choose one of them")  # fmt: skip
    need = _numbers(parsed, document, "need_kw", "")
    windows = len(need)
    if need and windows > MOST_WINDOWS:
        parsed.fault("need_kw", f"there are {windows} windows", f"at most {MOST_WINDOWS} windows",
                     "clear them in several instances")  # fmt: skip
    hours = _numbers(parsed, document, "hours", "", windows, above_zero=True)
    share = _optional(parsed, document, "max_share", 1.0)
    cap = _optional(parsed, document, "price_cap", LARGEST)
    bids = _bids(parsed, document.get("bids"), windows)
    if not parsed.faults:
        parsed.instance = Instance(
            pricing=Pricing(pricing), need_kw=need, hours=hours, bids=bids, max_share=share,
            price_cap=cap,
        )  # fmt: skip
    return parsed


def _bids(parsed: Parsed, found: object, windows: int) -> tuple[Offer, ...]:
    if not isinstance(found, Sequence) or isinstance(found, str):
        parsed.fault("bids", "bids is missing or no list", "bids is a list", "give [] for none")
        return ()
    if len(found) > MOST_BIDS or len(found) * windows > MOST_ENTRIES:
        parsed.fault(
            "bids", f"{len(found)} bids x {windows} windows",
            f"at most {MOST_BIDS} bids and {MOST_ENTRIES} bids x windows",
            "clear places that share no bids in instances of their own",
        )  # fmt: skip
        return ()
    seen: dict[str, int] = {}
    bids = []
    for number, entry in enumerate(found):
        where = f"bids[{number}]."
        if not isinstance(entry, Mapping):
            parsed.fault(where[:-1], "it is not an object", "a bid is an object",
                         f"give {', '.join(_BID)}")  # fmt: skip
            continue
        before = len(parsed.faults)
        bid = _bid(parsed, entry, where, windows)
        if bid.id and bid.id in seen:
            parsed.fault(f"{where}id", f"{bid.id!r} is the id of bids[{seen[bid.id]}] too",
                         "ids of bids are unique", "give each bid an id of its own")  # fmt: skip
        seen.setdefault(bid.id, number)
        if len(parsed.faults) == before:
            bids.append(bid)
    return tuple(bids)


def _bid(parsed: Parsed, entry: Mapping[str, Any], where: str, windows: int) -> Offer:
    _known(parsed, entry, _BID, where)
    divisible = entry.get("divisible")
    if not isinstance(divisible, bool):
        parsed.fault(f"{where}divisible", f"divisible is {divisible!r}", "true or false",
                     "say whether the bid may be cut")  # fmt: skip
    group, requires = entry.get("exclusive_group"), entry.get("requires")
    if group is not None and not _is_name(group):
        parsed.fault(f"{where}exclusive_group", f"exclusive_group is {group!r}",
                     "a name or null", "give null for none")  # fmt: skip
    if requires is None:
        requires = []
    if not isinstance(requires, list) or not all(_is_name(name) for name in requires):
        parsed.fault(f"{where}requires", f"requires is {requires!r}",
                     "a list of ids of bids", "give [] for none")  # fmt: skip
        requires = []
    return Offer(
        id=_name(parsed, entry, "id", where),
        seller=_name(parsed, entry, "seller", where),
        kw=_numbers(parsed, entry, "kw", where, windows),
        price_per_mwh=_numbers(parsed, entry, "price_per_mwh", where, windows),
        divisible=bool(divisible),
        min_kw=_number(parsed, entry.get("min_kw", 0.0), f"{where}min_kw"),
        exclusive_group=group if isinstance(group, str) else None,
        requires=tuple(requires),
    )


def _known(parsed: Parsed, entry: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """A field that looks like a misspelt one would change the auction if it were passed over."""
    for field in entry:
        if field in names:
            continue
        if meant := difflib.get_close_matches(field, names, n=1, cutoff=0.8):
            parsed.fault(f"{where}{field}", f"there is no field {field}",
                         f"fields are {', '.join(names)}", f"write {meant[0]}")  # fmt: skip
        else:
            parsed.ignored.append(f"{where}{field}")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME


def _name(parsed: Parsed, entry: Mapping[str, Any], field: str, where: str) -> str:
    value = entry.get(field)
    if isinstance(value, str) and _is_name(value):
        return value
    parsed.fault(f"{where}{field}", f"{field} is {value!r}",
                 f"a text of 1 to {LONGEST_NAME} characters", "give it")  # fmt: skip
    return ""


def _number(
    parsed: Parsed, value: object, field: str, *, most: float = LARGEST, above_zero: bool = False
) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        enough = number > 0 if above_zero else number >= 0
        if math.isfinite(number) and enough and number <= most:
            return number
    low = "above 0" if above_zero else "0 or more"
    parsed.fault(field, f"{field.rpartition('.')[2]} is {value!r}",
                 f"a number, {low}, at most {most:g}", "give such a number")  # fmt: skip
    return 0.0


def _numbers(
    parsed: Parsed, entry: Mapping[str, Any], field: str, where: str, count: int | None = None,
    *, above_zero: bool = False,
) -> tuple[float, ...]:  # fmt: skip
    values = entry.get(field)
    if not isinstance(values, list) or (count is None and not values):
        parsed.fault(f"{where}{field}", f"{field} is missing or no list of numbers",
                     "one number for each window", "give a list")  # fmt: skip
        return ()
    if count is not None and len(values) != count:
        parsed.fault(
            f"{where}{field}", f"{len(values)} numbers for {count} windows",
            "one number for each window of need_kw", "give as many numbers as need_kw has",
        )  # fmt: skip
        return ()
    return tuple(
        _number(parsed, value, f"{where}{field}[{at}]", above_zero=above_zero)
        for at, value in enumerate(values)
    )


def _optional(parsed: Parsed, document: Mapping[str, Any], field: str, most: float) -> float | None:
    value = document.get(field)
    return None if value is None else _number(parsed, value, field, most=most)
