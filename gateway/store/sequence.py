"""Which readings of a device were seen: duplicates vanish, gaps are counted and can be closed.

Of each boot the highest number is known, and which numbers below it are missing. A number
that comes late is therefore never taken for a repeat.
"""

from __future__ import annotations

from typing import Final

import msgspec

MOST_HOLES: Final = 256
"""Holes of one boot that are remembered; of the lowest one then only its size is."""
Key = tuple[int, int]
"""Series number and boot."""
Hole = tuple[int, int]
"""First and last missing number."""


class Mark(msgspec.Struct):
    """What is known of the numbers of one boot."""

    newest: int = -1
    """Highest number that was seen."""
    base: int = 0
    """Below it nobody knows any more what was seen."""
    lost: int = 0
    """Readings in holes that are not remembered any more."""
    holes: list[Hole] = msgspec.field(default_factory=list)
    """What is missing from `base` to `newest`, in order."""

    @property
    def missing(self) -> int:
        """Readings that were skipped and have not come."""
        return self.lost + sum(last - first + 1 for first, last in self.holes)


class SequenceMarks:
    """Per (series, boot) what was seen."""

    def __init__(self) -> None:
        self._marks: dict[Key, Mark] = {}
        self._known: set[int] = set()
        self._missing: dict[int, int] = {}
        self.opened = 0
        """Readings that were found missing, since the start."""
        self.closed = 0
        """Of these, readings that came late."""

    @property
    def missing(self) -> dict[int, int]:
        """Readings that are missing, per series number that misses any."""
        return self._missing.copy()

    def load(self, series: int, boot: int, mark: Mark) -> None:
        """Take over a mark from storage."""
        self._marks[series, boot] = mark
        self._known.add(series)
        self._count(series, mark.missing)

    def mark(self, series: int, boot: int) -> Mark:
        """What is known of a boot."""
        return self._marks[series, boot]

    def holes(self, series: int, boot: int) -> list[Hole]:
        """What is missing of a boot now; a copy."""
        mark = self._marks.get((series, boot))
        return mark.holes.copy() if mark is not None else []

    def seen(self, series: int, boot: int, sequence: int) -> bool:
        """Note a sequence number; True when it was there before. -1 is never a duplicate.

        False for a number of which nobody knows any more: the database's key tells it apart.
        """
        if sequence < 0:
            return False
        mark = self._marks.get((series, boot))
        if mark is None:
            mark = self._begin(series, boot, sequence)
        if sequence == mark.newest + 1:
            mark.newest = sequence
            return False
        if sequence > mark.newest:
            self._open(series, mark, (mark.newest + 1, sequence - 1))
            mark.newest = sequence
            return False
        return sequence >= mark.base and not self._close(series, mark, sequence)

    def _begin(self, series: int, boot: int, sequence: int) -> Mark:
        """A boot counts from 0; of a series never heard of, what came before is not ours."""
        start = 0 if series in self._known else sequence
        self._known.add(series)
        mark = self._marks[series, boot] = Mark(newest=start - 1, base=start)
        return mark

    def _open(self, series: int, mark: Mark, hole: Hole) -> None:
        size = hole[1] - hole[0] + 1
        self.opened += size
        self._count(series, size)
        mark.holes.append(hole)
        if len(mark.holes) > MOST_HOLES:
            first, last = mark.holes.pop(0)
            mark.lost += last - first + 1
            mark.base = last + 1

    def _close(self, series: int, mark: Mark, sequence: int) -> bool:
        """Take a number out of the hole that it is missing from; False when it is in none."""
        for place, (first, last) in enumerate(mark.holes):
            if first <= sequence <= last:
                left = [(first, sequence - 1), (sequence + 1, last)]
                mark.holes[place : place + 1] = [hole for hole in left if hole[0] <= hole[1]]
                self.closed += 1
                self._count(series, -1)
                return True
        return False

    def _count(self, series: int, more: int) -> None:
        now = self._missing.get(series, 0) + more
        if now:
            self._missing[series] = now
        else:
            self._missing.pop(series, None)
