"""Telemetry in: gathered, committed, acknowledged, confirmed to the device."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from adapters.mqtt import wire
from adapters.mqtt.commits import Room, acknowledge_all, store_at_last
from adapters.mqtt.confirmations import Confirmations, Stored
from adapters.mqtt.sequence import DeviceSequence
from adapters.mqtt.session import Acknowledge
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


class _Message(NamedTuple):
    mid: int
    acknowledge: Acknowledge
    device_id: str
    telemetry: wire.Telemetry | None
    """None where a message was put aside: it keeps its place among the acknowledgements."""
    readings: list[Reading]


class TelemetryIntake:
    """Turns telemetry messages into committed readings, many messages to a commit."""

    def __init__(self, sink: ReadingSink, time_map: TimeMap, stored: Stored) -> None:
        """`stored(device, boot, through)` is called after a commit, as often as devices need it."""
        self._sink = sink
        self._time = time_map
        self._confirmations = Confirmations(stored)
        self._waiting: list[_Message] = []
        self._room = Room()
        self._fresh = asyncio.Event()
        self._sequences: dict[str, DeviceSequence] = {}
        self._session: Acknowledge | None = None
        self._reference: tuple[int, datetime] | None = None
        """One wall instant in Unix microseconds, and its market time."""

    def gaps(self) -> dict[str, int]:
        """Readings given up as lost, per device that lost any."""
        return {device: known.gaps for device, known in self._sequences.items() if known.gaps}

    @property
    def shed(self) -> int:
        """Readings sent at QoS 0 that were dropped because the disk was too far behind."""
        return self._room.shed

    def dropped_before(
        self, device_id: str, telemetry: wire.Telemetry, acknowledge: Acknowledge
    ) -> bool:
        """Whether a device sends nothing but what it had dropped already: somebody replays it.

        Judged within one session (told by its `acknowledge`) only: a broker that was killed
        delivers again what it had kept, in front of what is new.
        """
        if acknowledge != self._session:
            self._session = acknowledge
            for each in self._sequences.values():
                each.new_session()
        known = self._sequences.get(device_id)
        if known is None:
            return False
        return known.dropped(telemetry.boot, [reading.sequence for reading in telemetry.readings])

    def add(
        self, device_id: str, telemetry: wire.Telemetry, payload: bytes, *, mid: int,
        acknowledge: Acknowledge,
    ) -> None:  # fmt: skip
        """Take a message; `acknowledge` hears of its `mid` once the readings are committed.

        Raises: WireError when a time is outside what market time can express.
        """
        boot = telemetry.boot
        try:
            readings = [self._reading(device_id, boot, each) for each in telemetry.readings]
        except OverflowError as error:
            raise wire.WireError(
                f"a reading is outside of market time: {error}", payload
            ) from error
        # At QoS 1 the broker's window bounds what waits; at QoS 0 nothing else does. What is
        # shed is not confirmed: a device that keeps its readings sends them again.
        if self._room.take(len(readings), always=mid > 0):
            self._waiting.append(_Message(mid, acknowledge, device_id, telemetry, readings))
        self._fresh.set()

    def pass_over(self, *, mid: int, acknowledge: Acknowledge) -> None:
        """Acknowledge a message that was put aside, in its turn."""
        self._waiting.append(_Message(mid, acknowledge, "", None, []))
        self._fresh.set()

    async def run(self) -> None:
        """Commit batches until cancelled.

        What waits then is never acknowledged: the broker keeps it for the next session.
        """
        try:
            await self._commit()
        finally:
            self._confirmations.close()

    async def _commit(self) -> None:
        while True:
            await self._fresh.wait()
            if len(self._waiting) < _PLENTY:
                await asyncio.sleep(_GATHER_S)
            batch = self._waiting[:_MOST]
            readings = [reading for message in batch for reading in message.readings]
            if readings:
                await store_at_last(self._sink, readings)
            del self._waiting[: len(batch)]
            self._room.leave(len(readings))
            if not self._waiting:
                self._fresh.clear()
            acknowledge_all((message.acknowledge, message.mid) for message in batch)
            self._confirm(batch)

    def _confirm(self, batch: list[_Message]) -> None:
        through: dict[tuple[str, int], int] = {}
        for message in batch:
            telemetry = message.telemetry
            if telemetry is None or not message.readings:
                continue
            known = self._sequences.get(message.device_id)
            if known is None:
                known = self._sequences[message.device_id] = DeviceSequence()
            numbers = [reading.sequence for reading in message.readings]
            mark = known.take(telemetry.boot, numbers, telemetry.oldest)
            if telemetry.oldest is not None and message.acknowledge == self._session:
                known.keeps(telemetry.boot, telemetry.oldest)
            through[message.device_id, telemetry.boot] = mark
        for (device_id, boot), mark in through.items():
            if mark >= 0:
                self._confirmations.stored(device_id, boot, mark)

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
        """Market time of a wall instant on the wire: one addition to an instant near it."""
        if self._reference is None:
            wall = _EPOCH + timedelta(microseconds=micros)
            self._reference = micros, self._time.to_market(wall)
        wall_us, market = self._reference
        return market + timedelta(microseconds=(micros - wall_us) * self._time.speed)
