"""Sparkplug's topics and the host's STATE (Eclipse Sparkplug 3.0.0, chapters 4 and 6)."""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from adapters.mqtt.wire import MAX_ID, WireError

NAMESPACE: Final = "spBv1.0"
_LEVEL: Final = re.compile(rf"[^/+#\x00]{{1,{MAX_ID}}}")
_NODE_LEVELS, _DEVICE_LEVELS = 4, 5
_MOST_EVIDENCE: Final = 256
_MOST_STATE: Final = 4_096
"""Bytes of a STATE; more is malformed."""


class Verb(enum.Enum):
    """What a message is; N speaks of the edge node itself, D of one of its devices."""

    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    NDATA = "NDATA"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    DDATA = "DDATA"
    DCMD = "DCMD"


_VERBS: Final = {verb.value: verb for verb in Verb}


class Topic(msgspec.Struct, frozen=True):
    """Whom a message is of or for."""

    group: str
    verb: Verb
    edge_node: str
    device: str = ""
    """Empty for the edge node itself."""

    def __str__(self) -> str:
        levels = [NAMESPACE, self.group, self.verb.value, self.edge_node]
        return "/".join([*levels, self.device] if self.device else levels)


def check_levels(*names: str) -> None:
    """ValueError for a name that cannot stand in a topic."""
    for name in names:
        if _LEVEL.fullmatch(name) is None:
            raise ValueError(f"{name!r} cannot stand in a topic: no /, +, # or NUL, 1 to {MAX_ID}")


def parse(name: str) -> Topic:
    """The parts of a topic; WireError when it is none of Sparkplug's."""
    levels = name.split("/")
    verb = _VERBS.get(levels[2]) if len(levels) > 2 else None  # noqa: PLR2004 - where it stands
    wanted = _NODE_LEVELS if verb is not None and verb.value[0] == "N" else _DEVICE_LEVELS
    evidence = name.encode(errors="replace")[:_MOST_EVIDENCE]
    if verb is None or levels[0] != NAMESPACE or len(levels) != wanted:
        raise WireError(f"{name[:_MOST_EVIDENCE]!r} is no topic of Sparkplug B", evidence)
    try:
        check_levels(levels[1], *levels[3:])
    except ValueError as error:
        raise WireError(str(error), evidence) from error
    return Topic(levels[1], verb, *levels[3:])


def every_message_of(group: str, edge_node: str) -> str:
    """Filter for whatever an edge node and its devices say; commands to them come along."""
    return f"{NAMESPACE}/{group}/+/{edge_node}/#"


def state_topic(host_id: str) -> str:
    """Where a host says whether it is there."""
    return f"{NAMESPACE}/STATE/{host_id}"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A host's birth or death certificate."""

    online: bool
    timestamp: int
    """Milliseconds since 1970, the same in the Will and in the birth that follows it."""


_STATE: Final = msgspec.json.Decoder(State)


def encode_state(state: State) -> bytes:
    """A certificate as JSON."""
    return msgspec.json.encode(state)


def decode_state(data: bytes) -> State:
    """Parse a certificate; WireError when malformed."""
    if len(data) > _MOST_STATE:
        raise WireError(f"a STATE of {len(data)} bytes", data[:_MOST_EVIDENCE])
    try:
        return _STATE.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"malformed STATE: {error}", data[:_MOST_EVIDENCE]) from error
