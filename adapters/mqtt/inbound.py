"""What devices say: told apart by topic, judged, handed on. No connection of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from adapters.mqtt import wire
from adapters.mqtt.exchange import Expected, MqttDevice
from adapters.mqtt.intake import TelemetryIntake
from adapters.mqtt.presence import Presence
from marketplace_core.errors import ConfigError
from marketplace_core.ports import Clock, ReadingSink
from marketplace_core.verification.flags import FlagKind

_FROM_DEVICES: Final = ("telemetry", "ack", "status")


class Inbound:
    """Takes messages of the bound devices; everything else is quarantined."""

    def __init__(
        self,
        topics: Mapping[str, Mapping[str, str]],
        *,
        sink: ReadingSink,
        intake: TelemetryIntake,
        presence: Presence,
        expected: Expected,
        clock: Clock,
    ) -> None:
        """`topics`: of each device id the topic of each kind, as `topics_of` makes them."""
        self._routes = {
            kinds[kind]: (device_id, kind)
            for device_id, kinds in topics.items()
            for kind in _FROM_DEVICES
        }
        self._sink = sink
        self._intake = intake
        self._presence = presence
        self._expected = expected
        self._clock = clock

    async def take(self, topic: str, payload: bytes, *, again: bool) -> None:
        """Return when the broker may be told that the message is dealt with.

        `again`: the broker says that it may have delivered it before.
        """
        device_id, kind = self._routes.get(topic, ("", ""))
        try:
            await self._take(device_id, kind, payload, topic=topic, again=again)
        except wire.WireError as error:
            # Acknowledged all the same: poison that comes back for ever helps nobody.
            self._sink.quarantine(
                source=topic, reason=str(error), evidence=error.evidence, device_id=device_id
            )

    async def _take(
        self, device_id: str, kind: str, payload: bytes, *, topic: str, again: bool
    ) -> None:
        if not device_id:
            organisation, device, _ = wire.split_topic(topic)
            raise wire.WireError(f"no device {organisation}/{device} is bound", payload)
        if kind == "telemetry":
            await self._telemetry(device_id, payload, again=again)
        elif kind == "ack":
            answer = wire.decode_acknowledgement(payload)
            self._presence.heard(device_id)
            self._expected.answered(device_id, answer)
        elif payload:  # an empty one only clears what was retained
            online = wire.decode_status(payload).online
            if not online and self._presence.reachable(device_id):
                self._notice(device_id, FlagKind.OFFLINE, "it, or its Will, says that it is gone")
            self._presence.heard(device_id, online=online)

    async def _telemetry(self, device_id: str, payload: bytes, *, again: bool) -> None:
        telemetry = wire.decode_telemetry(payload)
        self._presence.reported(device_id)
        if not again and self._intake.dropped_before(device_id, telemetry):
            numbers = [reading.sequence for reading in telemetry.readings]
            self._notice(
                device_id, FlagKind.REPLAYS,
                f"boot {telemetry.boot} sends {numbers[0]} to {numbers[-1]} again, which it had"
                " dropped as stored",
            )  # fmt: skip
        await self._intake.take(device_id, telemetry, payload)

    def _notice(self, device_id: str, kind: FlagKind, evidence: str) -> None:
        self._sink.noticed(
            device_id=device_id, kind=kind, since=self._clock.now(), evidence=evidence
        )


def topics_of(devices: Iterable[MqttDevice]) -> dict[str, dict[str, str]]:
    """Of each device id the topic of each kind; ConfigError when a name cannot stand in one."""
    kinds: tuple[wire.Kind, ...] = ("telemetry", "command", "ack", "stored", "status")
    try:
        return {
            device.device_id: {
                kind: wire.topic(device.organisation, device.device_id, kind) for kind in kinds
            }
            for device in devices
        }
    except ValueError as error:
        raise ConfigError(f"mqtt.devices: {error}") from error
