"""The tables, the same in SQLite and PostgreSQL.

Rows that mirror a core type keep it whole as JSON in `document`; columns beside
it are what queries select on. Instants are integers: microseconds since 1970 UTC.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

metadata: Final = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(column_0_label)s"}
)

journal = Table(
    "journal",
    metadata,
    Column("shard", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("stream", String(64), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("previous", LargeBinary(32), nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    PrimaryKeyConstraint("shard", "sequence"),
    Index("ix_journal_stream", "stream"),
)

journal_heads = Table(
    "journal_heads",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    # Commits of the writer, counted in shard 0: tells whether one in doubt came through.
    Column("commits", BigInteger, nullable=False, server_default="0"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("stage", String(32), nullable=False),
    Column("shard", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("stage", "shard"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("stage", String(32), nullable=False),
    Column("shard", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    PrimaryKeyConstraint("stage", "shard", "sequence"),
)

organisations = Table(
    "organisations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("since_us", BigInteger, nullable=False),
)

clients = Table(
    "clients",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organisation", String(64), nullable=False, index=True),
    Column("role", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("label", String(200), nullable=False),
    Column("salt", LargeBinary(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger),
)

locations = Table(
    "locations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("parent", String(64), index=True),
    Column("document", Text, nullable=False),
)

assets = Table(
    "assets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organisation", String(64), nullable=False, index=True),
    Column("feeder", String(64), nullable=False),
    Column("document", Text, nullable=False),
)

# Who may be driven and measured for whom: a device belongs to one asset, and neither a
# device nor a meter to two organisations.
asset_devices = Table(
    "asset_devices",
    metadata,
    Column("device_id", String(128), primary_key=True),
    Column("asset_id", String(64), nullable=False, index=True),
    Column("organisation", String(64), nullable=False),
)

asset_meters = Table(
    "asset_meters",
    metadata,
    Column("series", String(128), nullable=False),
    Column("asset_id", String(64), nullable=False, index=True),
    Column("organisation", String(64), nullable=False),
    PrimaryKeyConstraint("series", "asset_id"),
)

needs = Table(
    "needs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("buyer", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("document", Text, nullable=False),
    Column("clearing", Text),
)

bids = Table(
    "bids",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("need_id", String(64), nullable=False, index=True),
    Column("seller", String(64), nullable=False, index=True),
    Column("document", Text, nullable=False),
)

contracts = Table(
    "contracts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("need_id", String(64), nullable=False, index=True),
    Column("buyer", String(64), nullable=False, index=True),
    Column("seller", String(64), nullable=False, index=True),
    Column("document", Text, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("buyer", String(64), nullable=False, index=True),
    Column("need_id", String(64), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Column("calls", Text),
    Column("revision", Integer, nullable=False, server_default="0"),
)

setpoints = Table(
    "setpoints",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("order_id", String(64), nullable=False, index=True),
    Column("device_id", String(128), nullable=False, index=True),
    Column("state", String(16), nullable=False, index=True),
    Column("valid_from_us", BigInteger, nullable=False),
    Column("valid_until_us", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    Column("outcome", Text),
)

windows = Table(
    "windows",
    metadata,
    Column("order_id", String(64), nullable=False),
    Column("contract_id", String(64), nullable=False, index=True),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("instructed_kw", Text, nullable=False),
    Column("closed", Text),
    Column("delivery", Text),
    PrimaryKeyConstraint("order_id", "contract_id", "start_us"),
)

statement_lines = Table(
    "statement_lines",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("order_id", String(64), nullable=False, index=True),
    Column("buyer", String(64), nullable=False, index=True),
    Column("seller", String(64), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("document", Text, nullable=False),
)

postings = Table(
    "postings",
    metadata,
    Column("transaction_id", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("order_id", String(64), nullable=False, index=True),
    Column("document", Text, nullable=False),
    PrimaryKeyConstraint("transaction_id", "number"),
)

flags = Table(
    "flags",
    metadata,
    Column("shard", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("device_id", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("order_id", String(64), nullable=False, index=True),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("document", Text, nullable=False),
    PrimaryKeyConstraint("shard", "sequence"),
)

disputes = Table(
    "disputes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("line_id", String(64), nullable=False, index=True),
    Column("buyer", String(64), nullable=False, index=True),
    Column("seller", String(64), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("document", Text, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("organisation", String(64), nullable=False),
    Column("key", String(128), nullable=False),
    Column("request_hash", String(64), nullable=False),
    Column("response", Text, nullable=False),
    PrimaryKeyConstraint("organisation", "key"),
)
