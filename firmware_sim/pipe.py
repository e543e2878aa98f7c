"""Requests and answers over a pipe: frames of a 4-byte big-endian length and a MessagePack map.

Every request has `op` and `now_us`. Times are market time in whole Unix microseconds, powers
are kW, injection positive. A request that makes no sense is answered with `{error}`; the
next one is served as if nothing had been.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Final, Literal

import msgpack
import msgspec

from firmware_sim.agents import Asked
from firmware_sim.lockstep import Answer, Lockstep
from marketplace_core.errors import FlexwayError, RejectedError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTH: Final = struct.Struct(">I")
MOST_BYTES: Final = 16 * 1024 * 1024
"""Longest frame that is read; more is no request."""


class PipeError(FlexwayError):
    """The stream holds no frames: nothing after it can be trusted."""


class _Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    now_us: int


class _Hello(_Request, frozen=True, kw_only=True, tag="hello"):
    pass


class _Step(_Request, frozen=True, kw_only=True, tag="step"):
    until_us: int


class _Set(_Request, frozen=True, kw_only=True, tag="set"):
    device: str
    id: str
    order_id: str
    revision: int
    power_kw: float
    valid_from_us: int
    valid_until_us: int
    lease_s: float


class _Release(_Request, frozen=True, kw_only=True, tag="release"):
    device: str
    order_id: str
    revision: int


class _Query(_Request, frozen=True, kw_only=True, tag="query"):
    device: str


class _Stored(_Request, frozen=True, kw_only=True, tag="stored"):
    device: str
    boot: int
    through: int


class _Link(_Request, frozen=True, kw_only=True, tag="link"):
    protocol: Literal["mqtt"]
    up: bool


class _End(_Request, frozen=True, kw_only=True, tag="end"):
    pass


_AnyRequest = _Hello | _Step | _Set | _Release | _Query | _Stored | _Link | _End
_DECODER: Final = msgspec.msgpack.Decoder(_AnyRequest)


def serve(lockstep: Lockstep, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the last one, or until nobody writes any more.

    Raises: PipeError when the stream breaks off within a frame or a frame is too long.
    """
    while (body := _read(requests)) is not None:
        ended, answer = respond(lockstep, body)
        packed = msgpack.packb(answer)
        answers.write(_LENGTH.pack(len(packed)) + packed)
        answers.flush()
        if ended:
            return


def respond(lockstep: Lockstep, body: bytes) -> tuple[bool, Answer]:
    """Whether a request was the last one, and its answer."""
    try:
        request = _DECODER.decode(body)
        lockstep.now(_instant(request.now_us))
        return isinstance(request, _End), _answer(lockstep, request)
    except RejectedError as error:
        said = (str(error), error.field, error.rule, error.remedy)
        return False, {"error": "; ".join(part for part in said if part)}
    except (msgspec.MsgspecError, OverflowError) as error:
        return False, {"error": str(error)}


def _answer(lockstep: Lockstep, request: _AnyRequest) -> Answer:
    match request:
        case _Hello():
            answer = lockstep.hello()
        case _Step():
            answer = lockstep.step(_instant(request.until_us))
        case _Set():
            answer = lockstep.set(_asked(request))
        case _Release():
            answer = lockstep.release(request.device, request.order_id, request.revision)
        case _Query():
            answer = lockstep.query(request.device)
        case _Stored():
            answer = lockstep.stored(request.device, request.boot, request.through)
        case _Link():
            answer = lockstep.link(up=request.up)
        case _End():
            answer = {}
    return answer


def _asked(request: _Set) -> Asked:
    return Asked(
        device=request.device, id=request.id, order_id=request.order_id,
        revision=request.revision, power_kw=request.power_kw, lease_s=request.lease_s,
        valid_from=_instant(request.valid_from_us), valid_until=_instant(request.valid_until_us),
    )  # fmt: skip


def _instant(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _read(stream: BinaryIO) -> bytes | None:
    """One frame; None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise PipeError("the stream ended within the length of a frame")
    (length,) = _LENGTH.unpack(head)
    if length > MOST_BYTES:
        raise PipeError(f"a frame of {length} bytes: at most {MOST_BYTES} are read")
    body = stream.read(length)
    if len(body) < length:
        raise PipeError(f"the stream ended after {len(body)} of {length} bytes of a frame")
    return body
