"""MQTT payloads and topics: bytes to values and back, no I/O.

Topics are `flexway/v1/{organisation}/{shard}/{device}/{kind}`; the shard is two hex digits
of a hash of the device id, fixed for ever. Payloads are MessagePack maps with `v: 1`;
devices may send JSON instead (told by its first byte). The wire carries wall time in
Unix microseconds and watts, injection positive.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from marketplace_core.errors import FlexwayError
from marketplace_core.ids import shard_of

VERSION: Final = 1
MAX_PAYLOAD: Final = 256 * 1024
"""Bytes of one message; more is malformed."""
MAX_READINGS: Final = 4_096
"""Readings in one message; more is malformed."""
MAX_ID: Final = 128
"""Characters of an id; a device, an organisation or a command."""
MAX_REASON: Final = 512
"""Characters of a reason."""
Kind = Literal["telemetry", "command", "ack", "stored", "status"]
FROM_DEVICES: Final[tuple[Kind, ...]] = ("telemetry", "ack", "status")
TO_DEVICES: Final[tuple[Kind, ...]] = ("command", "stored")
_LEVELS: Final = 6
_JSON_FIRST: Final = b"{"
_LEVEL: Final = re.compile(rf"[^/+#\x00]{{1,{MAX_ID}}}")
_MOST_EVIDENCE: Final = 256
"""Bytes that are kept of a message that is too long to be kept whole."""

# Numbers that no meter can mean would poison sums and databases downstream: NaN and
# infinities fail these bounds too.
_Count = Annotated[int, Meta(ge=0, le=2**62)]
_Micros = Annotated[int, Meta(gt=0, lt=4_102_444_800_000_000)]
"""Unix microseconds, up to 1 January 2100."""
_Span = Annotated[float, Meta(gt=0.0, le=86_400.0)]
_Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
_Watts = Annotated[float, Meta(ge=-1e9, le=1e9)]
_WattHours = Annotated[float, Meta(ge=0.0, le=1e12)]
_Id = Annotated[str, Meta(max_length=MAX_ID)]
_Reason = Annotated[str, Meta(max_length=MAX_REASON)]


class WireError(FlexwayError):
    """A message that is not what the profile says; carries the bytes."""

    def __init__(self, message: str, evidence: bytes) -> None:
        super().__init__(message)
        self.evidence = evidence


class WireReading(msgspec.Struct, frozen=True, array_like=True):
    """One reading, as an array in this order."""

    sequence: _Count
    start_us: _Micros
    """Unix microseconds, wall time."""
    seconds: _Span
    """Wall seconds."""
    power_w: _Watts
    """Mean over the span, injection positive."""
    sample_w: _Watts | None = None
    """At the end of the span."""
    soc_wh: _WattHours | None = None
    """Energy stored, for a device that stores any."""
    available: bool = True
    """Whether the device can be driven now."""
    wanted_wh: _WattHours | None = None
    """Energy that a load with a deadline still wants to take."""
    leaves_us: _Micros | None = None
    """Its deadline, wall time."""


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """Device to gateway: readings of one boot, oldest first."""

    v: Literal[1] = 1
    boot: _Count
    readings: Annotated[list[WireReading], Meta(max_length=MAX_READINGS)]
    oldest: _Count | None = None
    """Lowest sequence number the device still keeps; what is missing below it is lost for good."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Gateway to device."""

    v: Literal[1] = 1
    kind: Literal["set", "release", "query"]
    id: _Id
    """Setpoint id, or an id of a release or query; comes back in the acknowledgement."""
    order_id: _Id = ""
    revision: _Count = 0
    power_w: _Watts = 0.0
    lease_s: _Seconds = 0.0
    """Wall seconds the device may hold the setpoint without a refresh."""
    ttl_s: _Seconds = 0.0
    """Wall seconds from arrival within which the device acts, or drops the command."""
    starts_in_s: _Seconds = 0.0
    """Wall seconds from arrival until the setpoint takes effect."""
    valid_for_s: _Seconds = 0.0
    """Wall seconds from arrival until the setpoint ends whatever the lease says."""


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Device to gateway: what became of a command, and what is in force now."""

    v: Literal[1] = 1
    id: _Id
    """Id of the command that is answered."""
    status: Literal["applied", "refused", "stale"]
    reason: _Reason = ""
    setpoint_id: _Id | None = None
    """Setpoint in force now; None = the device is at its fallback."""
    power_w: _Watts | None = None
    """Of the setpoint in force."""
    lease_s: _Seconds | None = None
    """Wall seconds left on its lease."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Gateway to device: everything up to a sequence number is on disk; keep the rest."""

    v: Literal[1] = 1
    boot: _Count
    through: _Count


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Device to gateway, retained; set offline by the Will."""

    v: Literal[1] = 1
    online: bool
    boot: _Count = 0


_ENCODER: Final = msgspec.msgpack.Encoder()
Payload = Telemetry | Command | Acknowledgement | Stored | Status
TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    "telemetry": Telemetry,
    "command": Command,
    "ack": Acknowledgement,
    "stored": Stored,
    "status": Status,
}
"""Of each kind of message what it holds."""
_MSGPACK: Final = {kind: msgspec.msgpack.Decoder(form) for kind, form in TYPES.items()}
_JSON: Final = {kind: msgspec.json.Decoder(form) for kind, form in TYPES.items()}


def topic(organisation: str, device_id: str, kind: Kind) -> str:
    """Topic of one device and kind of message; ValueError for names that cannot stand in one."""
    for level in (organisation, device_id):
        if _LEVEL.fullmatch(level) is None:
            raise ValueError(f"{level!r} cannot stand in a topic: no /, +, # or NUL, 1 to {MAX_ID}")
    shard = f"{shard_of(device_id):02x}"
    return f"flexway/v{VERSION}/{organisation}/{shard}/{device_id}/{kind}"


def split_topic(name: str) -> tuple[str, str, str]:
    """Organisation, device and kind of a topic; WireError when it is not one of ours."""
    try:
        evidence = name.encode()
    except UnicodeEncodeError as error:
        raise WireError("a topic is UTF-8", name.encode(errors="replace")) from error
    levels = name.split("/")
    if len(levels) != _LEVELS or levels[:2] != ["flexway", f"v{VERSION}"]:
        raise WireError(f"{name[:_MOST_EVIDENCE]!r} is no topic of ours", evidence)
    _, _, organisation, shard, device_id, kind = levels
    if shard != f"{shard_of(device_id):02x}":
        raise WireError(f"{name[:_MOST_EVIDENCE]!r} has the wrong shard", evidence)
    if not (_LEVEL.fullmatch(organisation) and _LEVEL.fullmatch(device_id)):
        raise WireError(f"{name[:_MOST_EVIDENCE]!r} names nobody whom a topic can name", evidence)
    if kind not in TYPES:
        raise WireError(f"{name[:_MOST_EVIDENCE]!r} has an unknown kind", evidence)
    return organisation, device_id, kind


def encode(payload: Payload) -> bytes:
    """A payload as MessagePack."""
    return _ENCODER.encode(payload)


def decode_telemetry(data: bytes) -> Telemetry:
    """Parse readings; WireError when malformed or above a limit."""
    telemetry: Telemetry = _decode("telemetry", data)
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
        raise WireError(f"{len(data)} bytes in one message", data[:_MOST_EVIDENCE])
    decoders = _JSON if data[:1] == _JSON_FIRST else _MSGPACK
    try:
        return decoders[kind].decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"malformed {kind}: {error}", data) from error
    except RecursionError as error:
        raise WireError(f"malformed {kind}: nested too deep", data[:_MOST_EVIDENCE]) from error
