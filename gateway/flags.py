"""What is found wrong with devices: said once, journalled, shown. A person decides what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from gateway.observability.metrics import Metrics
from gateway.store.flags import add_flag
from gateway.store.writer import Transaction, Writer
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.events import DeviceFlagged
from marketplace_core.ports import Clock
from marketplace_core.verification.flags import Flag, FlagKind

_QUIET: Final = timedelta(minutes=30)
"""The same thing about the same device is not said again within this market time, and within
one order not at all."""
_FOLLOWS_NOT: Final = frozenset({FlagKind.IGNORES, FlagKind.CLAMPS})
"""Of one order these are one finding: what clamps stands still for a while after a restart."""
_MOST_WAITING: Final = 10_000
_TOGETHER: Final = 200
"""Findings in one transaction at most: a command waits for no more than that."""
_STREAM: Final = "devices"
"""Journal stream of findings outside of any order."""
_log = structlog.get_logger(__name__)


class Flags:
    """Takes findings from adapters and the closed loop, and journals each once."""

    def __init__(
        self,
        *,
        writer: Writer,
        clock: Clock,
        profiles: Mapping[str, DeviceProfile],
        metrics: Metrics,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._profiles = profiles
        self._metrics = metrics
        self._said: dict[tuple[str, FlagKind, str], datetime] = {}
        self._queue: asyncio.Queue[Flag] = asyncio.Queue(_MOST_WAITING)

    def restore(self, known: Iterable[Flag]) -> None:
        """Take over what was said before the process ended."""
        for flag in known:
            key = _key(flag.device_id, flag.kind, flag.order_id)
            self._said[key] = max(flag.at, self._said.get(key, flag.at))

    def found(
        self, *, device_id: str, kind: FlagKind, since: datetime, evidence: str, order_id: str = ""
    ) -> None:
        """Note a finding; `since` is when it could first be seen. Never raises."""
        now, key = self._clock.now(), _key(device_id, kind, order_id)
        said = self._said.get(key)
        self._said[key] = now
        if said is not None and (order_id or now - said < _QUIET):
            return
        profile = self._profiles.get(device_id)
        interval = profile.telemetry_s if profile is not None else 60.0
        flag = Flag(
            device_id=device_id, kind=kind, at=now, order_id=order_id, evidence=evidence,
            after_intervals=round(max(0.0, (now - since).total_seconds()) / interval, 2),
        )  # fmt: skip
        _log.warning("device_flagged", device=device_id, kind=kind.value, evidence=evidence)
        self._metrics.flags.labels(kind=kind.value).inc()
        if self._queue.full():
            _log.error("flag_dropped", device=device_id, kind=kind.value)
            return
        self._queue.put_nowait(flag)

    async def run(self) -> None:
        """Journal findings until cancelled; what came together in one transaction.

        A broker that loses ten thousand devices at once must not cost as many commits.
        """
        while True:
            batch = [await self._queue.get()]
            while len(batch) < _TOGETHER and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._writer.transact(partial(_journal, batch))


def _key(device_id: str, kind: FlagKind, order_id: str) -> tuple[str, FlagKind, str]:
    return device_id, FlagKind.IGNORES if kind in _FOLLOWS_NOT else kind, order_id


def _journal(flags: Sequence[Flag], transaction: Transaction) -> None:
    for flag in flags:
        record = transaction.append(flag.order_id or _STREAM, DeviceFlagged(flag=flag))
        add_flag(transaction.connection, flag, shard=record.shard, sequence=record.sequence)
