"""MQTT payloads and topics: bytes to values and back, no I/O.

Topics are `flexway/v1/{organisation}/{shard}/{device}/{kind}`; the shard is two hex digits
of a hash of the device id, fixed for ever. Payloads are MessagePack maps with `v: 1`;
devices may send JSON instead (told by its first byte). The wire carries wall time in
Unix microseconds and watts, injection positive.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from marketplace_core.errors import FlexwayError
from marketplace_core.ids import shard_of

VERSION: Final = 1
MAX_PAYLOAD: Final = 256 * 1024
"""Bytes of one message; more is malformed."""
MAX_READINGS: Final = 4_096
"""Readings in one message; more is malformed."""
Kind = Literal["telemetry", "command", "ack", "stored", "status"]
_LEVELS: Final = 6
_JSON_FIRST: Final = b"{"


class WireError(FlexwayError):
    """A message that is not what the profile says; carries the bytes."""

    def __init__(self, message: str, evidence: bytes) -> None:
        super().__init__(message)
        self.evidence = evidence


class WireReading(msgspec.Struct, frozen=True, array_like=True):
    """One reading, as an array in this order."""

    sequence: int
    start_us: int
    """Unix microseconds, wall time."""
    seconds: float
    """Wall seconds."""
    power_w: float
    """Mean over the span, injection positive."""
    sample_w: float | None = None
    """At the end of the span."""
    soc_wh: float | None = None
    available: bool = True


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """Device to gateway: readings of one boot, oldest first."""

    v: Literal[1] = 1
    boot: int
    readings: list[WireReading]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Gateway to device."""

    v: Literal[1] = 1
    kind: Literal["set", "release", "query"]
    id: str
    """Setpoint id, or an id of a release or query; comes back in the acknowledgement."""
    order_id: str = ""
    revision: int = 0
    power_w: float = 0.0
    lease_s: float = 0.0
    """Wall seconds the device may hold the setpoint without a refresh."""
    ttl_s: float = 0.0
    """Wall seconds after which a late arrival is dropped; relative, since clocks are skewed."""
    valid_for_s: float = 0.0
    """Wall seconds from sending until the setpoint ends whatever the lease says."""


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Device to gateway: what became of a command, and what is in force now."""

    v: Literal[1] = 1
    id: str
    """Id of the command that is answered."""
    status: Literal["applied", "refused", "stale"]
    reason: str = ""
    setpoint_id: str | None = None
    """Setpoint in force now; None = the device is at its fallback."""
    power_w: float | None = None
    """Of the setpoint in force."""
    lease_s: float | None = None
    """Wall seconds left on its lease."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Gateway to device: everything up to a sequence number is on disk; keep the rest."""

    v: Literal[1] = 1
    boot: int
    through: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Device to gateway, retained; set offline by the Will."""

    v: Literal[1] = 1
    online: bool
    boot: int = 0


_ENCODER: Final = msgspec.msgpack.Encoder()
Payload = Telemetry | Command | Acknowledgement | Stored | Status
_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    "telemetry": Telemetry,
    "command": Command,
    "ack": Acknowledgement,
    "stored": Stored,
    "status": Status,
}
_MSGPACK: Final = {kind: msgspec.msgpack.Decoder(form) for kind, form in _TYPES.items()}
_JSON: Final = {kind: msgspec.json.Decoder(form) for kind, form in _TYPES.items()}


def topic(organisation: str, device_id: str, kind: Kind) -> str:
    """Topic of one device and kind of message."""
    shard = f"{shard_of(device_id):02x}"
    return f"flexway/v{VERSION}/{organisation}/{shard}/{device_id}/{kind}"


def split_topic(name: str) -> tuple[str, str, str]:
    """Organisation, device and kind of a topic; WireError when it is not one of ours."""
    levels = name.split("/")
    if len(levels) != _LEVELS or levels[:2] != ["flexway", f"v{VERSION}"]:
        raise WireError(f"{name!r} is no topic of ours", name.encode(errors="replace"))
    _, _, organisation, shard, device_id, kind = levels
    if shard != f"{shard_of(device_id):02x}":
        raise WireError(f"{name!r} has the wrong shard", name.encode(errors="replace"))
    if kind not in _TYPES:
        raise WireError(f"{name!r} has an unknown kind", name.encode(errors="replace"))
    return organisation, device_id, kind


def encode(payload: Payload) -> bytes:
    """A payload as MessagePack."""
    return _ENCODER.encode(payload)


def decode_telemetry(data: bytes) -> Telemetry:
    """Parse readings; WireError when malformed or above a limit."""
    telemetry: Telemetry = _decode("telemetry", data)
    if len(telemetry.readings) > MAX_READINGS:
        raise WireError(f"{len(telemetry.readings)} readings in one message", data[:256])
    for reading in telemetry.readings:
        _check(reading, data)
    return telemetry


def decode_command(data: bytes) -> Command:
    """Parse a command; WireError when malformed."""
    command: Command = _decode("command", data)
    return command


def decode_acknowledgement(data: bytes) -> Acknowledgement:
    """Parse an acknowledgement; WireError when malformed."""
    acknowledgement: Acknowledgement = _decode("ack", data)
    return acknowledgement


def decode_stored(data: bytes) -> Stored:
    """Parse a storage confirmation; WireError when malformed."""
    stored: Stored = _decode("stored", data)
    return stored


def decode_status(data: bytes) -> Status:
    """Parse a presence message; WireError when malformed."""
    status: Status = _decode("status", data)
    return status


def _decode(kind: str, data: bytes) -> Any:
    if len(data) > MAX_PAYLOAD:
        raise WireError(f"{len(data)} bytes in one message", data[:256])
    decoders = _JSON if data[:1] == _JSON_FIRST else _MSGPACK
    try:
        return decoders[kind].decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"malformed {kind}: {error}", data) from error
    except RecursionError as error:
        raise WireError(f"malformed {kind}: nested too deep", data[:256]) from error


_LONGEST_S: Final = 86_400.0
_MOST_W: Final = 1e9
_LAST_US: Final = 4_102_444_800_000_000
"""1 January 2100 in Unix microseconds."""
_LAST_INTEGER: Final = 2**62


def _check(reading: WireReading, data: bytes) -> None:
    """Refuse numbers that no meter can mean: they would poison sums downstream."""
    sample, stored = reading.sample_w, reading.soc_wh
    plausible = (
        0 <= reading.sequence < _LAST_INTEGER
        and 0 < reading.start_us < _LAST_US
        and 0.0 < reading.seconds <= _LONGEST_S
        and -_MOST_W <= reading.power_w <= _MOST_W
        and (sample is None or -_MOST_W <= sample <= _MOST_W)
        and (stored is None or 0.0 <= stored <= _MOST_W)
    )
    if not plausible:
        raise WireError(f"reading {reading.sequence} is out of range", data)
