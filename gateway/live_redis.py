"""Live device state shared by processes: a Redis hash per device beside a copy in memory.

What is asked is answered from memory; what is heard is written behind, pipelined, only
the newest per device. Every flush goes to the other processes as one packed entry of a
capped stream. While Redis is away each process goes on with what it hears itself.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from gateway.bus.client import FAILURES, heed_cancellation
from gateway.bus.outage import Outage
from gateway.live import LiveState
from gateway.store.engine import back_off, from_us, to_us
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.ports import Clock
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

_CHANGES: Final = 10_000
"""About how many flushes the stream keeps: who is further behind reads the hashes."""
_KEEP_MS: Final = 30 * 86_400_000
"""A device that was silent for thirty days is forgotten."""
_READ: Final = 100
"""Most flushes read at once."""
_FLUSH: Final = 5_000
"""Most devices written at once."""
_WRITER, _FOLLOWER = "live_writer", "live_follower"
_HASH_SET: Final = """
local known = redis.call('HGET', KEYS[1], 'start_us')
if known and (tonumber(known) or -1) > tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 1, #ARGV - 1))
redis.call('PEXPIRE', KEYS[1], ARGV[#ARGV])
return 1
"""


class _Hash(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a device's hash."""

    start_us: int
    seconds: float
    power_kw: float
    boot: int
    sequence: int
    available: int
    soc_kwh: float | None = None
    sample_kw: float | None = None
    register_kwh: float | None = None
    wanted_kwh: float | None = None
    leaves_us: int | None = None


class _Flush(msgspec.Struct, frozen=True, array_like=True):
    """What one process heard, for the others."""

    origin: str
    readings: list[Reading]


class RedisLiveState(LiveState):
    """Live device state that several processes see and a restart finds again."""

    def __init__(
        self,
        profiles: Mapping[str, DeviceProfile],
        clock: Clock,
        client: Redis,
        *,
        prefix: str,
        origin: str,
        timeout_s: float,
        show: Callable[[bool], None],
    ) -> None:
        """`prefix` keeps installations apart, `origin` names this run of this process."""
        super().__init__(profiles, clock)
        self._client = client
        self._prefix = prefix
        self._origin = origin
        self._block_ms = int(timeout_s * 500)
        self._outage = Outage("redis", show)
        self._changed: dict[str, Reading] = {}
        self._waiting = asyncio.Event()
        self._after: bytes | str = "$"
        self._script = client.register_script(_HASH_SET)

    async def load(self) -> None:
        """Take over the hashes of every device; a server that is away is done without."""
        try:
            await self._load()
        except FAILURES as error:
            self._outage.failed(_FOLLOWER, error)

    async def run(self) -> None:
        """Write behind and follow the others until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._persist(_WRITER, self._flush))
            tasks.create_task(self._persist(_FOLLOWER, self._follow))

    async def close(self) -> None:
        """Give the connections up."""
        await self._client.aclose()

    def _take_over(self, reading: Reading, latest: datetime) -> bool:
        taken = super()._take_over(reading, latest)
        if taken and reading.series in self._profiles:
            self._changed[reading.series] = reading
            self._waiting.set()
        return taken

    async def _persist(self, part: str, work: Callable[[], Any]) -> None:
        waits = back_off(float("inf"))
        while True:
            heed_cancellation()
            try:
                await work()
            except FAILURES as error:
                self._outage.failed(part, error)
                await asyncio.sleep(next(waits))
            else:
                self._outage.recovered(part)
                waits = back_off(float("inf"))

    async def _flush(self) -> None:
        if not self._outage.over(_WRITER):
            await self._client.ping()
            self._outage.recovered(_WRITER)
            # It may have come back empty: everything that is known is written again.
            known = {s: r for s, r in self._newest.items() if s in self._profiles}
            self._changed = known
            self._waiting.set()
        await self._waiting.wait()
        batch = dict(itertools.islice(self._changed.items(), _FLUSH))
        for series in batch:
            del self._changed[series]
        if not self._changed:
            self._waiting.clear()
        try:
            await self._write(list(batch.values()))
        except FAILURES:
            self._changed = {**batch, **self._changed}
            raise

    async def _write(self, readings: list[Reading]) -> None:
        if not readings:
            return
        flush = msgspec.msgpack.encode(_Flush(self._origin, readings))
        async with self._client.pipeline(transaction=False) as pipeline:
            for reading in readings:
                key = self._key(reading.series)
                await self._script([key], _arguments(reading), client=pipeline)
            pipeline.xadd(self._stream, {b"p": flush}, maxlen=_CHANGES, approximate=True)
            await pipeline.execute()

    async def _follow(self) -> None:
        if not self._outage.over(_FOLLOWER) or self._after == "$":
            await self._load()
        answer: Any = await self._client.xread(
            {self._stream: self._after}, count=_READ, block=self._block_ms
        )
        for entry_id, fields in answer[0][1] if answer else []:
            self._after = entry_id
            self._hear(fields.get(b"p", b""))

    def _hear(self, entry: bytes) -> None:
        try:
            flush = msgspec.msgpack.decode(entry, type=_Flush)
        except msgspec.MsgspecError:
            return  # not written by a process like this one: it is no state
        if flush.origin != self._origin:
            self._adopt(flush.readings)

    async def _load(self) -> None:
        newest = await self._client.xrevrange(self._stream, count=1)
        self._after = newest[0][0] or "0-0" if newest else "0-0"
        async with self._client.pipeline(transaction=False) as pipeline:
            for device_id in self._profiles:
                pipeline.hgetall(self._key(device_id))
            hashes = await pipeline.execute()
        found = (_reading(*pair) for pair in zip(self._profiles, hashes, strict=True))
        self._adopt(reading for reading in found if reading is not None)

    def _adopt(self, readings: Iterable[Reading]) -> None:
        """Take over what another process wrote, without writing it again."""
        for reading in readings:
            if reading.series in self._profiles:
                super()._take_over(reading, self._latest())
        if not self._silent:
            self._all_heard.set()

    @property
    def _stream(self) -> str:
        return f"{self._prefix}:live"

    def _key(self, device_id: str) -> str:
        return f"{self._prefix}:live:{device_id}"


def _arguments(reading: Reading) -> list[Any]:
    fields = _Hash(
        start_us=to_us(reading.start), seconds=reading.seconds, power_kw=reading.power_kw,
        boot=reading.boot, sequence=reading.sequence, available=int(reading.available),
        soc_kwh=reading.soc_kwh, sample_kw=reading.sample_kw, register_kwh=reading.register_kwh,
        wanted_kwh=reading.wanted_kwh,
        leaves_us=None if reading.leaves_at is None else to_us(reading.leaves_at),
    )  # fmt: skip
    named = {name: value for name, value in msgspec.structs.asdict(fields).items()
             if value is not None}  # fmt: skip
    return [part for name, value in named.items() for part in (name, repr(value))] + [_KEEP_MS]


def _reading(device_id: str, fields: Mapping[bytes, bytes]) -> Reading | None:
    """A device's hash as a reading; None when there is none, or it is not ours."""
    if not fields:
        return None
    try:
        text = {name.decode(): value.decode() for name, value in fields.items()}
        found = msgspec.convert(text, type=_Hash, strict=False)
        start = from_us(found.start_us)
        leaves = None if found.leaves_us is None else from_us(found.leaves_us)
    except (msgspec.ValidationError, UnicodeDecodeError, OverflowError):
        return None
    sample = None if found.sample_kw is None else Kw(found.sample_kw)
    return Reading(
        series=device_id, start=start, seconds=found.seconds, power_kw=Kw(found.power_kw),
        boot=found.boot, sequence=found.sequence, available=bool(found.available),
        soc_kwh=found.soc_kwh, sample_kw=sample, register_kwh=found.register_kwh,
        wanted_kwh=found.wanted_kwh, leaves_at=leaves,
    )  # fmt: skip
