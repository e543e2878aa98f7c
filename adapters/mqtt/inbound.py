"""What devices say: told apart by topic, judged, handed on. No connection of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from adapters.mqtt import wire
from adapters.mqtt.exchange import Expected, MqttDevice
from adapters.mqtt.intake import TelemetryIntake
from adapters.mqtt.packets import Publish
from adapters.mqtt.presence import Presence
from adapters.mqtt.session import Acknowledge
from marketplace_core.errors import ConfigError
from marketplace_core.ports import Clock, ReadingSink
from marketplace_core.verification.flags import FlagKind

_FROM_DEVICES: Final = ("telemetry", "ack", "status")
_NOBODY: Final = ("", "")


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
            kinds[kind].encode(): (device_id, kind)
            for device_id, kinds in topics.items()
            for kind in _FROM_DEVICES
        }
        self._sink = sink
        self._intake = intake
        self._presence = presence
        self._expected = expected
        self._clock = clock

    def take(self, messages: Sequence[Publish], acknowledge: Acknowledge) -> None:
        """Judge what came together; `acknowledge` is called with what is dealt with."""
        done: list[int] = []
        for message in messages:
            device_id, kind = self._routes.get(message.topic, _NOBODY)
            try:
                if kind == "telemetry":
                    self._telemetry(device_id, message, acknowledge)
                else:
                    self._take(device_id, kind, message)
                    done.append(message.mid)
            except wire.WireError as error:
                # Acknowledged all the same: poison that comes back for ever helps nobody.
                source = message.topic.decode(errors="replace")
                self._sink.quarantine(
                    source=source, reason=str(error), evidence=error.evidence, device_id=device_id
                )
                self._intake.pass_over(mid=message.mid, acknowledge=acknowledge)
        if done:
            acknowledge(done)

    def _take(self, device_id: str, kind: str, message: Publish) -> None:
        payload = message.payload
        if not device_id:
            organisation, device, _ = wire.split_topic(message.topic.decode(errors="replace"))
            raise wire.WireError(f"no device {organisation}/{device} is bound", payload)
        if kind == "ack":
            answer = wire.decode_acknowledgement(payload)
            self._presence.heard(device_id)
            self._expected.answered(device_id, answer)
        elif payload:  # an empty one only clears what was retained
            online = wire.decode_status(payload).online
            if not online and self._presence.reachable(device_id):
                self._notice(device_id, FlagKind.OFFLINE, "it, or its Will, says that it is gone")
            self._presence.heard(device_id, online=online)

    def _telemetry(self, device_id: str, message: Publish, acknowledge: Acknowledge) -> None:
        telemetry = wire.decode_telemetry(message.payload)
        self._presence.reported(device_id)
        dropped = self._intake.dropped_before(device_id, telemetry, acknowledge)
        if dropped and not message.again:
            numbers = [reading.sequence for reading in telemetry.readings]
            self._notice(
                device_id, FlagKind.REPLAYS,
                f"boot {telemetry.boot} sends {numbers[0]} to {numbers[-1]} again, which it had"
                " dropped as stored",
            )  # fmt: skip
        self._intake.add(
            device_id, telemetry, message.payload, mid=message.mid, acknowledge=acknowledge
        )

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
