"""What is in of each device's readings: `stored` never skips one that can still come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_BOOTS: Final = 4
"""Boots of one device that are remembered."""
_AHEAD: Final = 4_096
"""Most numbers remembered ahead of a hole: of more, the device is asked for again."""


class _Boot:
    """Numbers of one boot: everything up to `through` is in or lost, `ahead` beyond a hole."""

    def __init__(self, through: int) -> None:
        self.through = through
        self.ahead: set[int] = set()
        self.oldest = 0
        """Highest of the lowest numbers that the device said in this session it still keeps."""

    def skip_to(self, through: int) -> int:
        """Give up what is missing up to and with `through`; return how many that are."""
        if through <= self.through:
            return 0
        present = {number for number in self.ahead if number <= through}
        lost = through - self.through - len(present)
        self.ahead -= present
        self.through = through
        self._join()
        return lost

    def add(self, numbers: Iterable[int]) -> None:
        """Take numbers in, in any order, again or not.

        What is too far ahead of a hole is forgotten: never confirmed, it is sent again.
        """
        for number in numbers:
            if number == self.through + 1:
                self.through = number
                self._join()
            elif number > self.through and len(self.ahead) < _AHEAD:
                self.ahead.add(number)

    def _join(self) -> None:
        while self.through + 1 in self.ahead:
            self.through += 1
            self.ahead.remove(self.through)


class DeviceSequence:
    """Follows the sequence numbers of one device."""

    def __init__(self) -> None:
        self.gaps = 0
        """Readings that were never received and never will be."""
        self._boots: dict[int, _Boot] = {}

    def take(self, boot: int, numbers: list[int], oldest: int | None) -> int:
        """Note readings that are stored; return the number through which nothing is missing.

        `oldest` is the lowest number the device still keeps: a hole below it can never be
        filled and counts as a gap, a hole above it will be filled when the device sends again.
        A device that does not say keeps nothing: every hole is a gap at once.
        """
        known = self._boots.get(boot)
        if known is None:
            first = oldest if oldest is not None else min(numbers, default=0)
            known = self._remember(boot, _Boot(first - 1))
        if oldest is None:
            known.add(numbers)
            self.gaps += known.skip_to(max(known.ahead, default=-1))
            return known.through
        self.gaps += known.skip_to(oldest - 1)
        known.add(numbers)
        return known.through

    def keeps(self, boot: int, oldest: int) -> None:
        """Note what the device still keeps of a boot that was taken."""
        known = self._boots[boot]
        known.oldest = max(known.oldest, oldest)

    def new_session(self) -> None:
        """A broker that was killed delivers old messages again: no device says them twice."""
        for known in self._boots.values():
            known.oldest = 0

    def dropped(self, boot: int, numbers: list[int]) -> bool:
        """Whether the device had dropped all of these as stored before it sent them."""
        known = self._boots.get(boot)
        return known is not None and bool(numbers) and max(numbers) < known.oldest

    def _remember(self, boot: int, known: _Boot) -> _Boot:
        self._boots[boot] = known
        while len(self._boots) > _BOOTS:
            del self._boots[next(iter(self._boots))]
        return known
