"""Records of a commit as the bytes of stream entries, and back.

entry = MAC (16 bytes) | MessagePack of [version, [[shard, sequence, at_us, stream, fact], ...]]

`fact` is the JSON of the journal. The MAC (keyed BLAKE2b) tells our own entries from
what anybody else put into the stream: another installation, a process before a
restore of the database, a forger. What is not ours is no fact; it makes a subscriber read
the journal.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from gateway.store.engine import from_us, to_us
from marketplace_core.events import decode_fact, encode_fact
from marketplace_core.ports import Record

_VERSION: Final = 1
_MAC_BYTES: Final = 16


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    shard: int
    sequence: int
    at_us: int
    stream: str
    fact: bytes


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    version: int
    records: list[_Packed]


def pack(
    records: Sequence[Record], key: bytes, *, most_records: int, most_bytes: int
) -> Iterator[bytes]:
    """Records as entries, in order, each within both limits (but for one oversized record)."""
    waiting: list[_Packed] = []
    size = 0
    for record in records:
        packed = _Packed(
            record.shard, record.sequence, to_us(record.at), record.stream,
            encode_fact(record.fact),
        )  # fmt: skip
        if waiting and (len(waiting) == most_records or size + len(packed.fact) > most_bytes):
            yield _seal(waiting, key)
            waiting, size = [], 0
        waiting.append(packed)
        size += len(packed.fact)
    if waiting:
        yield _seal(waiting, key)


def unpack(entry: bytes, key: bytes) -> list[Record] | None:
    """The records of an entry; None when it is not ours or cannot be read."""
    mac, body = entry[:_MAC_BYTES], entry[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(body, key)):
        return None
    try:
        opened = msgspec.msgpack.decode(body, type=_Entry)
        if opened.version != _VERSION:
            return None
        return [_record(packed) for packed in opened.records]
    except msgspec.MsgspecError:
        return None


def _seal(records: list[_Packed], key: bytes) -> bytes:
    body = msgspec.msgpack.encode(_Entry(_VERSION, records))
    return _mac(body, key) + body


def _mac(body: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_MAC_BYTES, key=key).digest()


def _record(packed: _Packed) -> Record:
    return Record(
        shard=packed.shard, sequence=packed.sequence, at=from_us(packed.at_us),
        stream=packed.stream, fact=decode_fact(packed.fact),
    )  # fmt: skip
