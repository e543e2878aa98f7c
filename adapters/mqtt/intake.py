"""Telemetry in: gathered, committed, acknowledged, confirmed to the device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from adapters.mqtt import wire
from adapters.mqtt.commits import store_at_last
from adapters.mqtt.sequence import DeviceSequence
from marketplace_core.ports import ReadingSink, TimeMap
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

_GATHER_S: Final = 0.003
"""Wall seconds that telemetry is gathered for one commit."""
_PLENTY: Final = 500
"""Messages that are worth a commit without gathering more."""
_MOST: Final = 2_000
"""Messages that share one commit at most."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Stored = Callable[[str, int, int], None]


class _Message(msgspec.Struct, gc=False):
    device_id: str
    telemetry: wire.Telemetry
    readings: list[Reading]
    done: asyncio.Future[None]


class TelemetryIntake:
    """Turns telemetry messages into committed readings, many messages to a commit."""

    def __init__(self, sink: ReadingSink, time_map: TimeMap, stored: Stored) -> None:
        """`stored(device, boot, through)` is called after the commit, once per device."""
        self._sink = sink
        self._time = time_map
        self._stored = stored
        self._waiting: list[_Message] = []
        self._fresh = asyncio.Event()
        self._ended = False
        self._sequences: dict[str, DeviceSequence] = {}

    def gaps(self) -> dict[str, int]:
        """Readings given up as lost, per device that lost any."""
        return {device: known.gaps for device, known in self._sequences.items() if known.gaps}

    def dropped_before(self, device_id: str, telemetry: wire.Telemetry) -> bool:
        """Whether a device sends nothing but what it had dropped already: somebody replays it."""
        known = self._sequences.get(device_id)
        numbers = [reading.sequence for reading in telemetry.readings]
        return known is not None and known.dropped(telemetry.boot, numbers)

    async def take(self, device_id: str, telemetry: wire.Telemetry, payload: bytes) -> None:
        """Return once the readings are committed, or given up because the adapter ends.

        Raises: WireError when a time is outside what market time can express.
        """
        try:
            readings = [self._reading(device_id, telemetry.boot, r) for r in telemetry.readings]
        except OverflowError as error:
            raise wire.WireError(
                f"a reading is outside of market time: {error}", payload
            ) from error
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Message(device_id, telemetry, readings, done))
        self._fresh.set()
        if self._ended:
            # A message that was on its way when the adapter ended: nobody would commit it.
            self.abandon()
        await done

    async def run(self) -> None:
        """Commit batches until cancelled; what waits then is for `abandon`."""
        while True:
            await self._fresh.wait()
            if len(self._waiting) < _PLENTY:
                await asyncio.sleep(_GATHER_S)
            batch = self._waiting[:_MOST]
            readings = [reading for message in batch for reading in message.readings]
            await store_at_last(self._sink, readings)
            del self._waiting[: len(batch)]
            if not self._waiting:
                self._fresh.clear()
            self._confirm(batch)

    def abandon(self) -> None:
        """Let every `take` return although nothing was committed.

        Only when the connection is closed: what they acknowledge then reaches nobody, and
        the broker keeps the messages for the next session.
        """
        self._ended = True
        for message in self._waiting:
            if not message.done.done():
                message.done.set_result(None)
        self._waiting.clear()

    def _confirm(self, batch: list[_Message]) -> None:
        through: dict[tuple[str, int], int] = {}
        for message in batch:
            if not message.done.done():
                message.done.set_result(None)
            if message.readings:
                known = self._sequences.setdefault(message.device_id, DeviceSequence())
                boot, numbers = message.telemetry.boot, [r.sequence for r in message.readings]
                mark = known.take(boot, numbers, message.telemetry.oldest)
                through[message.device_id, boot] = mark
        for (device_id, boot), mark in through.items():
            if mark >= 0:
                self._stored(device_id, boot, mark)

    def _reading(self, device_id: str, boot: int, reading: wire.WireReading) -> Reading:
        return Reading(
            series=device_id,
            start=self._at(reading.start_us),
            seconds=reading.seconds * self._time.speed,
            power_kw=Kw(reading.power_w / 1000.0),
            boot=boot,
            sequence=reading.sequence,
            soc_kwh=None if reading.soc_wh is None else reading.soc_wh / 1000.0,
            available=reading.available,
            sample_kw=None if reading.sample_w is None else Kw(reading.sample_w / 1000.0),
            wanted_kwh=None if reading.wanted_wh is None else reading.wanted_wh / 1000.0,
            leaves_at=None if reading.leaves_us is None else self._at(reading.leaves_us),
        )

    def _at(self, micros: int) -> datetime:
        """Market time of a wall instant on the wire."""
        return self._time.to_market(_EPOCH + timedelta(microseconds=micros))
