"""The journal: append-only, hash-chained per shard.

hash = SHA-256(domain | shard | sequence | at_us | len(stream) | stream | previous | payload)

Any change to a record changes its hash and so breaks the chain at its successor, at
the head kept beside it and at the signed roots kept outside (`roots.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping

from sqlalchemy import Connection, RowMapping, insert, select, text, update

from gateway.store.engine import from_us, to_us
from gateway.store.tables import journal, journal_heads
from marketplace_core.errors import FencedError, StoreError
from marketplace_core.events import Fact, decode_fact, encode_fact
from marketplace_core.ids import shard_of
from marketplace_core.ports import Clock, Record

GENESIS = bytes(32)
_DOMAIN = b"flexway-journal-1"


def record_hash(
    *, shard: int, sequence: int, at_us: int, stream: str, previous: bytes, payload: bytes
) -> bytes:
    """The chain hash of one record (formula in the module docstring); 32 bytes."""
    name = stream.encode()
    digest = hashlib.sha256(_DOMAIN)
    digest.update(shard.to_bytes(4, "big") + sequence.to_bytes(8, "big"))
    digest.update(at_us.to_bytes(8, "big", signed=True) + len(name).to_bytes(2, "big"))
    digest.update(name + previous + payload)
    return digest.digest()


class Journal:
    """Appends to and reads from the shards this process writes."""

    def __init__(self, clock: Clock, shards: int) -> None:
        """`shards` is fixed when the database is created: streams map to shards by it."""
        self._clock = clock
        self._shards = shards
        self._epochs: dict[int, int] = {}
        self._commits = 0

    def claim(self, connection: Connection) -> None:
        """Take over every shard with a new epoch: an older writer's next commit fails."""
        if connection.dialect.name == "postgresql":
            # Waits for the older writer's open transaction; two that claim at once take turns.
            connection.execute(text("LOCK TABLE journal_heads IN EXCLUSIVE MODE"))
        known = {
            row.shard: row.epoch
            for row in connection.execute(select(journal_heads.c.shard, journal_heads.c.epoch))
        }
        if known and len(known) != self._shards:
            raise StoreError(
                f"this database was created with {len(known)} journal shards, the configuration "
                f"says {self._shards}: set store.journal_shards = {len(known)}"
            )
        for shard in range(self._shards):
            epoch = known.get(shard, 0) + 1
            self._epochs[shard] = epoch
            if shard in known:
                statement = update(journal_heads).where(journal_heads.c.shard == shard)
                connection.execute(statement.values(epoch=epoch))
            else:
                row = {"shard": shard, "sequence": 0, "hash": GENESIS, "epoch": epoch}
                connection.execute(insert(journal_heads).values(row))
        self._commits = _commits(connection)

    def stamp(self, connection: Connection) -> None:
        """Begin a transaction of this writer: count it, and hold off whoever wants to claim.

        Raises:
            FencedError: another writer claimed the journal; nothing may be written any more.
        """
        stamped = connection.execute(
            update(journal_heads)
            .where(journal_heads.c.shard == 0, journal_heads.c.epoch == self._epochs[0])
            .values(commits=self._commits + 1)
        )
        if stamped.rowcount != 1:
            raise FencedError("the journal was taken over by another writer")

    def stamped(self) -> None:
        """The transaction that was stamped is committed."""
        self._commits += 1

    def came_through(self, connection: Connection) -> bool:
        """Whether the stamped transaction was committed, though nobody said so.

        Raises:
            FencedError: another writer claimed the journal since, so nobody can tell.
        """
        head = connection.execute(select(journal_heads).where(journal_heads.c.shard == 0)).one()
        if head.epoch != self._epochs[0]:
            raise FencedError("the journal was taken over by another writer, a commit is in doubt")
        through: bool = head.commits == self._commits + 1
        return through

    def append(self, connection: Connection, stream: str, fact: Fact) -> Record:
        """Add a fact to its stream's shard.

        Raises:
            FencedError: another writer claimed the shard since.
        """
        shard = shard_of(stream, self._shards)
        head = connection.execute(select(journal_heads).where(journal_heads.c.shard == shard)).one()
        at, payload, sequence = self._clock.now(), encode_fact(fact), head.sequence + 1
        chained = {
            "shard": shard,
            "sequence": sequence,
            "at_us": to_us(at),
            "stream": stream,
            "previous": head.hash,
            "payload": payload,
        }
        digest = record_hash(**chained)
        moved = connection.execute(
            update(journal_heads)
            .where(journal_heads.c.shard == shard)
            .where(journal_heads.c.epoch == self._epochs[shard])
            .values(sequence=sequence, hash=digest)
        )
        if moved.rowcount != 1:
            raise FencedError(f"journal shard {shard} was taken over by another writer")
        connection.execute(insert(journal).values(**chained, hash=digest))
        return Record(shard=shard, sequence=sequence, at=at, stream=stream, fact=fact)


def _commits(connection: Connection) -> int:
    query = select(journal_heads.c.commits).where(journal_heads.c.shard == 0)
    commits: int = connection.execute(query).scalar_one()
    return commits


def read_heads(connection: Connection) -> dict[int, tuple[int, bytes]]:
    """Sequence and hash of the newest record of each shard; (0, GENESIS) when empty."""
    rows = connection.execute(select(journal_heads).order_by(journal_heads.c.shard))
    return {row.shard: (row.sequence, bytes(row.hash)) for row in rows}


def read_after(connection: Connection, after: Mapping[int, int], limit: int) -> Iterator[Record]:
    """Records behind a position per shard, oldest first, at most `limit` per shard."""
    for shard in sorted(read_heads(connection)):
        statement = (
            select(journal)
            .where(journal.c.shard == shard, journal.c.sequence > after.get(shard, 0))
            .order_by(journal.c.sequence)
            .limit(limit)
        )
        for row in connection.execute(statement).mappings():
            yield to_record(row)


def read_streams(connection: Connection, streams: Collection[str]) -> list[Record]:
    """Every record of some streams in the order of their commit times."""
    statement = (
        select(journal)
        .where(journal.c.stream.in_(streams))
        .order_by(journal.c.at_us, journal.c.shard, journal.c.sequence)
    )
    return [to_record(row) for row in connection.execute(statement).mappings()]


def to_record(row: RowMapping) -> Record:
    """A journal row as the record it stands for."""
    return Record(
        shard=row["shard"],
        sequence=row["sequence"],
        at=from_us(row["at_us"]),
        stream=row["stream"],
        fact=decode_fact(bytes(row["payload"])),
    )
