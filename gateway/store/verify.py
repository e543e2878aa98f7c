"""Checking a journal against itself, its heads, its cursors and the roots outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from sqlalchemy import Connection, select

from gateway.store.journal import GENESIS, read_heads, record_hash
from gateway.store.roots import Root
from gateway.store.tables import cursors, journal

Hashes = dict[tuple[int, int], bytes]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with a journal."""

    kind: str
    """`altered`, `missing`, `out_of_order`, `truncated` or `rewritten`."""
    shard: int
    sequence: int
    detail: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found."""

    events: int
    head_hash: str
    """Hash over the heads of every shard: names the whole journal."""
    faults: tuple[Fault, ...]
    roots: int

    @property
    def verified(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify_journal(connection: Connection, roots: Iterable[Root]) -> Verdict:
    """Walk every chain and hold it against its head, the cursors and the signed roots."""
    hashes: Hashes = {}
    faults: list[Fault] = []
    heads = read_heads(connection)
    for shard, head in heads.items():
        faults.extend(_walk(connection, shard, head, hashes))
    faults.extend(_beyond_cursors(connection, heads))
    checked = 0
    for root in roots:
        checked += 1
        faults.extend(_against_root(root, hashes, heads))
    return Verdict(
        events=len(hashes), head_hash=head_hash(heads), faults=tuple(faults), roots=checked
    )


def head_hash(heads: dict[int, tuple[int, bytes]]) -> str:
    """One hash, in hex, over the heads of all shards."""
    packed = b"".join(
        shard.to_bytes(4, "big") + sequence.to_bytes(8, "big") + digest
        for shard, (sequence, digest) in sorted(heads.items())
    )
    return record_hash(
        shard=0, sequence=0, at_us=0, stream="heads", previous=GENESIS, payload=packed
    ).hex()


def _walk(
    connection: Connection, shard: int, head: tuple[int, bytes], hashes: Hashes
) -> Iterator[Fault]:
    expected, previous = 1, GENESIS
    rows = connection.execute(
        select(journal).where(journal.c.shard == shard).order_by(journal.c.sequence)
    ).mappings()
    for row in rows:
        sequence = row["sequence"]
        if sequence != expected:
            yield _fault("missing", shard, expected, f"next record is {sequence}")
        fields = {name: row[name] for name in ("shard", "sequence", "at_us", "stream")}
        digest = record_hash(**fields, previous=row["previous"], payload=row["payload"])
        if digest != row["hash"]:
            yield _fault("altered", shard, sequence, "its content does not give its hash")
        if row["previous"] != previous:
            yield _fault("out_of_order", shard, sequence, "it does not follow the one before it")
        hashes[shard, sequence] = row["hash"]
        expected, previous = sequence + 1, row["hash"]
    if head != (expected - 1, previous):
        yield _fault("truncated", shard, head[0], f"the head says {head[0]} records")


def _beyond_cursors(connection: Connection, heads: dict[int, tuple[int, bytes]]) -> Iterator[Fault]:
    for row in connection.execute(select(cursors)):
        if row.sequence > heads.get(row.shard, (0, GENESIS))[0]:
            yield _fault(
                "truncated", row.shard, row.sequence, f"stage {row.stage} has read further"
            )


def _against_root(
    root: Root, hashes: Hashes, heads: dict[int, tuple[int, bytes]]
) -> Iterator[Fault]:
    for name, (sequence, digest) in root.heads.items():
        shard = int(name)
        if sequence == 0:
            continue
        found = hashes.get((shard, sequence))
        if sequence > heads.get(shard, (0, GENESIS))[0] or found is None:
            yield _fault("truncated", shard, sequence, f"the root of {root.at} knows this record")
        elif found.hex() != digest:
            yield _fault("rewritten", shard, sequence, f"the root of {root.at} has another hash")


def _fault(kind: str, shard: int, sequence: int, detail: str) -> Fault:
    return Fault(kind=kind, shard=shard, sequence=sequence, detail=detail)
