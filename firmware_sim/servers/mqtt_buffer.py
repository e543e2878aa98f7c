"""What an MQTT device keeps until it is told that it is stored, packed as it goes out."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgpack

from marketplace_core.ports import TimeMap
from marketplace_core.verification.reading import Reading

KEPT: Final = 10_000
"""Readings the device keeps until it is told that they are stored."""
_BATCH: Final = 200
"""Readings in one message."""
_REMEMBERED: Final = 64
"""Messages of which a copy stays in a corner of the device's memory."""
Row = list[Any]
"""`[sequence, start_us, seconds, power_w, sample_w, soc_wh, available, wanted_wh, leaves_us]`,
wall time and watts."""


class _Sent(NamedTuple):
    through: int
    payload: bytes


class ReadingBuffer:
    """Readings of one boot, oldest first."""

    def __init__(self, boot: int, kept: int = KEPT, remembered: int = _REMEMBERED) -> None:
        """At most `kept` readings stay; the oldest go first. Copies of so many messages stay."""
        self.boot = boot
        self.dropped = 0
        """Readings lost because the buffer was full."""
        self._kept: deque[Row] = deque(maxlen=kept)
        self._sent_through = -1
        self._past: deque[_Sent] = deque(maxlen=remembered)
        self._told_oldest = 0

    def __len__(self) -> int:
        """Readings that nobody has confirmed as stored yet."""
        return len(self._kept)

    @property
    def oldest_sent(self) -> int | None:
        """Sequence of the oldest reading that went out and was not confirmed."""
        if self._kept and self._kept[0][0] <= self._sent_through:
            return int(self._kept[0][0])
        return None

    def keep(self, row: Row) -> None:
        """Keep a reading; its sequence counts up from zero in each boot."""
        self.dropped += len(self._kept) == self._kept.maxlen
        self._kept.append(row)

    def rewind(self) -> None:
        """Let everything that is kept go out again."""
        self._sent_through = -1

    def messages(self) -> Iterator[bytes]:
        """What has not gone out yet; a message counts as sent once it is handed out."""
        waiting = [row for row in self._kept if row[0] > self._sent_through]
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            oldest = self._kept[0][0] if self._kept else batch[0][0]
            message = {"v": 1, "boot": self.boot, "readings": batch, "oldest": oldest}
            payload: bytes = msgpack.packb(message)
            self._sent_through = batch[-1][0]
            self._told_oldest = max(self._told_oldest, oldest)
            self._past.append(_Sent(batch[-1][0], payload))
            yield payload

    def forget(self, stored: Mapping[str, int]) -> None:
        """Drop what is stored; a confirmation of another boot means nothing."""
        if stored["boot"] == self.boot:
            while self._kept and self._kept[0][0] <= stored["through"]:
                self._kept.popleft()

    def dropped_message(self) -> bytes | None:
        """An old message of readings that are gone, and that later messages said are gone."""
        old = (one.payload for one in self._past if one.through < self._told_oldest)
        return next(old, None)


def row_of(reading: Reading, time_map: TimeMap) -> Row:
    """A reading as it stands on the wire."""
    sample, soc, wanted = reading.sample_kw, reading.soc_kwh, reading.wanted_kwh
    leaves = reading.leaves_at
    return [
        reading.sequence,
        round(time_map.to_wall(reading.start).timestamp() * 1e6),
        reading.seconds / time_map.speed,
        reading.power_kw * 1000.0,
        None if sample is None else sample * 1000.0,
        None if soc is None else soc * 1000.0,
        reading.available,
        None if wanted is None else wanted * 1000.0,
        None if leaves is None else round(time_map.to_wall(leaves).timestamp() * 1e6),
    ]


def status(boot: int, *, online: bool) -> bytes:
    """A presence message. JSON on purpose: the profile lets devices send it."""
    return json.dumps({"v": 1, "online": online, "boot": boot}).encode()


MALFORMED: Final[tuple[bytes, ...]] = (
    b"\xc1 this byte begins nothing in MessagePack",
    msgpack.packb({"v": 1, "boot": 1, "readings": [[0, "yesterday", 60.0, -1400.0]]}),
    msgpack.packb({"v": 1, "boot": 1, "readings": [[0, 1, 60.0, float("nan")]]})[:-3],
)
"""Telemetry that cannot be read: no MessagePack, a wrong type, and a message cut short."""
