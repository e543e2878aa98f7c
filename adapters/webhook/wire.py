"""Messages of the webhook, version 1: values <-> bytes, signatures, answers. No I/O.

A message is a JSON object whose `type` names its kind. Times are wall time in UTC, power is
in kW, positive when it injects. Receivers ignore fields they do not know.

Three rules make it safe to repeat and to reorder. A message is known by its `id`: who saw it
answers as before and does nothing. Of the dispatches for one order and device the one with
the higher (`revision`, `issued_at`) stands, whichever comes last. After `valid_until` a
dispatch means nothing.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from marketplace_core.errors import FlexwayError

VERSION: Final = 1
MAX_BODY_BYTES: Final = 65_536
"""Longest message, and longest answer that is read."""
_MOST_EVIDENCE: Final = 200
Instant = Annotated[datetime, Meta(tz=True)]
"""Without an offset nobody could say when it is, nor which of two comes later."""


class WireError(FlexwayError):
    """Bytes that are no message, or no answer, of this version."""


class EventType(enum.Enum):
    """How far ahead of its start a dispatch was sent, or that it is a test."""

    DAY_AHEAD = "day-ahead"
    HOUR_AHEAD = "hour-ahead"
    STANDARD = "standard"
    CAPACITY_TEST = "capacity-test"


class Dispatch(msgspec.Struct, frozen=True, kw_only=True, tag="dispatch", tag_field="type"):
    """A power for one aggregate over one interval, or the cancellation of one."""

    id: str
    """Id of the setpoint; a cancellation has an id of its own."""
    order_id: str
    revision: int
    device_id: str
    """The aggregate that is dispatched."""
    issued_at: Instant
    """Later messages for the same order and device carry a later instant."""
    start_time: Instant
    end_time: Instant
    """The interval of the event; after it the aggregate is on its own again."""
    cancelled: bool = False
    """Every dispatch of this order and device up to this revision is withdrawn."""
    priority: int = 0
    """0 = as contracted; higher goes first."""
    is_voluntary: bool = False
    event_type: EventType = EventType.STANDARD
    energy_kw: float | UnsetType | None = UNSET
    """Change from the fallback in `direction`; null = the maximum, absent = not known."""
    nomination_kw: float | None = None
    """What the seller nominated, where it did."""
    power_kw: float | None = None
    """Absolute power of the aggregate; null when cancelled."""
    direction: Literal["UP", "DOWN"] | UnsetType = UNSET
    """`UP`: more injection or less consumption than the fallback."""
    share: float | UnsetType = UNSET
    """`energy_kw` as a share (0..1) of the most the aggregate can do in `direction`."""
    valid_from: Instant
    valid_until: Instant
    """A dispatch that arrives after this instant is dropped."""
    lease_s: float
    """Wall seconds for which it holds from `valid_from` on, whatever becomes of the sender."""
    version: int = VERSION

    @property
    def order(self) -> tuple[int, datetime]:
        """Of two dispatches for one order and device the greater stands."""
        return self.revision, self.issued_at


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag="ping", tag_field="type"):
    """Asks nothing but an answer."""

    id: str
    issued_at: Instant
    version: int = VERSION


class Notification(msgspec.Struct, frozen=True, kw_only=True, tag="notification", tag_field="type"):
    """Something happened that concerns the receiver; sent at least once, in order."""

    id: str
    event: str
    """`order.planned`, `order.settled`, ..."""
    issued_at: Instant
    """When it happened, market time."""
    data: dict[str, Any]
    version: int = VERSION


Message: TypeAlias = Dispatch | Ping | Notification


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver answers with."""

    status: Literal["accepted", "refused"]
    reason: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver says of an order when it is asked: what is in force now."""

    active: bool
    setpoint_id: str | None = None
    power_kw: float | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The receiver took the message."""


class Declined(msgspec.Struct, frozen=True):
    """The receiver said no, or is set up so that it cannot say yes: a repeat cannot help."""

    reason: str
    evidence: str


class Unclear(msgspec.Struct, frozen=True):
    """No answer that can be relied on: the message may have been taken."""

    reason: str


Reply: TypeAlias = Accepted | Declined | Unclear

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_SUCCESS: Final = 2
_REDIRECTION: Final = 3
_CLIENT_ERROR: Final = 4
"""Classes of statuses: their hundreds (RFC 9110, section 15)."""
_RETRIED: Final = frozenset({408, 425, 429})
"""Client errors that ask for a repeat."""
_REFUSALS: Final = frozenset({409, 410, 422})


def encode(message: Message | Answer | Status) -> bytes:
    """Canonical bytes of a message: the ones that are signed."""
    return _ENCODER.encode(message)


def decode(body: bytes) -> Message:
    """Parse a message; WireError names what is wrong with it."""
    message: Message = _decode(body, Message)
    if message.version != VERSION:
        raise WireError(f"version {message.version} is not {VERSION}")
    if isinstance(message, Dispatch) and (message.power_kw is None) is not message.cancelled:
        raise WireError("power_kw: a dispatch has one, a cancellation has none")
    return message


def decode_status(body: bytes) -> Status:
    """Parse the answer to a status request; WireError when it is none."""
    status: Status = _decode(body, Status)
    return status


def read_reply(status: int, body: bytes) -> Reply:
    """What an HTTP answer to a message means."""
    evidence = f"HTTP {status}: {_shown(body)}"
    hundreds = status // 100
    if hundreds == _SUCCESS:
        return _answer(body, evidence)
    if hundreds == _REDIRECTION:
        reason = "the endpoint redirects: register the address that it redirects to"
        return Declined(reason, evidence)
    if status in _REFUSALS:
        return Declined(_reason(body) or "the endpoint refused", evidence)
    if hundreds == _CLIENT_ERROR and status not in _RETRIED:
        return Declined("the endpoint is not set up to take this message", evidence)
    return Unclear(evidence)


def _answer(body: bytes, evidence: str) -> Reply:
    if not body.strip():
        return Accepted()
    try:
        answer: Answer = _decode(body, Answer)
    except WireError as error:
        return Unclear(f"the answer is none ({error}); {evidence}")
    if answer.status == "refused":
        return Declined(answer.reason or "the endpoint refused", evidence)
    return Accepted()


def _reason(body: bytes) -> str:
    try:
        answer: Answer = _decode(body, Answer)
    except WireError:
        return ""
    return answer.reason


def _decode(body: bytes, kind: Any) -> Any:
    if len(body) > MAX_BODY_BYTES:
        raise WireError(f"longer than {MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from error


def _shown(body: bytes) -> str:
    text = body[:_MOST_EVIDENCE].decode("utf-8", errors="replace")
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
