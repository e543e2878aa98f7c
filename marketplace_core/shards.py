"""Ranges of device shards: what one process takes in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from marketplace_core.ids import DEVICE_SHARDS, shard_of

_FORM: Final = re.compile("([0-9a-f]{2})-([0-9a-f]{2})")


class ShardRange(NamedTuple):
    """Shards from `first` to `last`, both included; written `80-ff`."""

    first: int
    last: int

    def __str__(self) -> str:
        """As it is written in options and topics."""
        return f"{self.first:02x}-{self.last:02x}"

    @property
    def whole(self) -> bool:
        """Whether it is every shard."""
        return self == EVERY_SHARD

    def holds(self, device_id: str) -> bool:
        """Whether a device's shard is in it."""
        return self.first <= shard_of(device_id) <= self.last

    def meets(self, other: ShardRange) -> bool:
        """Whether they have a shard in common."""
        return self.first <= other.last and other.first <= self.last


EVERY_SHARD: Final = ShardRange(0, DEVICE_SHARDS - 1)


def shard_range(text: str) -> ShardRange:
    """The range that a text such as `80-ff` names; ValueError when it names none."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no range of shards: write two hex digits twice, as 80-ff")
    first, last = (int(part, 16) for part in found.groups())
    if first > last:
        raise ValueError(f"{text!r} ends before it begins")
    return ShardRange(first, last)


def left_out(ranges: Iterable[ShardRange]) -> list[ShardRange]:
    """What none of the ranges holds, in order."""
    return list(_left_out(sorted(ranges)))


def _left_out(ranges: Iterable[ShardRange]) -> Iterator[ShardRange]:
    free = 0
    for each in ranges:
        if each.first > free:
            yield ShardRange(free, each.first - 1)
        free = max(free, each.last + 1)
    if free < DEVICE_SHARDS:
        yield ShardRange(free, DEVICE_SHARDS - 1)
