"""Which readings of a device were seen: duplicates vanish, gaps are counted."""

from __future__ import annotations

from typing import Final

_WINDOW: Final = 4096
"""Most sequence numbers kept ahead of a hole before the hole is given up as a gap."""


class SequenceMarks:
    """Per (series, boot): everything up to `through` was seen, and some numbers ahead of it."""

    def __init__(self) -> None:
        self._through: dict[tuple[int, int], int] = {}
        self._ahead: dict[tuple[int, int], set[int]] = {}
        self.gaps: dict[int, int] = {}
        """Readings given up as lost, per series number."""

    def load(self, series: int, boot: int, through: int) -> None:
        """Take over a mark from storage."""
        self._through[series, boot] = through

    def seen(self, series: int, boot: int, sequence: int) -> bool:
        """Note a sequence number; True when it was there before. -1 is never a duplicate."""
        if sequence < 0:
            return False
        key = (series, boot)
        through = self._through.get(key, -1)
        if sequence == through + 1 and key not in self._ahead:
            self._through[key] = sequence
            return False
        return self._seen_out_of_order(key, through, sequence)

    def through(self, series: int, boot: int) -> int:
        """Everything up to this sequence number is in, or was given up; -1 for nothing."""
        return self._through.get((series, boot), -1)

    def _seen_out_of_order(self, key: tuple[int, int], through: int, sequence: int) -> bool:
        ahead = self._ahead.setdefault(key, set())
        duplicate = sequence <= through or sequence in ahead
        if not duplicate:
            ahead.add(sequence)
        while through + 1 in ahead:
            through += 1
            ahead.remove(through)
        if len(ahead) > _WINDOW:
            lowest = min(ahead)
            self.gaps[key[0]] = self.gaps.get(key[0], 0) + lowest - through - 1
            through = lowest - 1
        self._through[key] = through
        if not ahead:
            del self._ahead[key]
        return duplicate
