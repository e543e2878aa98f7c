"""Organisations, clients, the network tree, bindings of devices and meters, disputes."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_INDEXES = (
    ("bids", "seller"),
    ("contracts", "buyer"),
    ("contracts", "seller"),
    ("orders", "buyer"),
    ("statement_lines", "buyer"),
    ("statement_lines", "seller"),
    ("windows", "contract_id"),
)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "organisations",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisations")),
    )
    op.create_table(
        "clients",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organisation", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("salt", sa.LargeBinary(length=16), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clients")),
    )
    op.create_index(op.f("ix_clients_organisation"), "clients", ["organisation"])
    op.create_table(
        "locations",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("parent", sa.String(length=64), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_locations")),
    )
    op.create_index(op.f("ix_locations_parent"), "locations", ["parent"])
    op.create_table(
        "asset_devices",
        sa.Column("device_id", sa.String(length=128), nullable=False),
        sa.Column("asset_id", sa.String(length=64), nullable=False),
        sa.Column("organisation", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_asset_devices")),
    )
    op.create_index(op.f("ix_asset_devices_asset_id"), "asset_devices", ["asset_id"])
    op.create_table(
        "asset_meters",
        sa.Column("series", sa.String(length=128), nullable=False),
        sa.Column("asset_id", sa.String(length=64), nullable=False),
        sa.Column("organisation", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("series", "asset_id", name=op.f("pk_asset_meters")),
    )
    op.create_index(op.f("ix_asset_meters_asset_id"), "asset_meters", ["asset_id"])
    op.create_table(
        "disputes",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("line_id", sa.String(length=64), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("seller", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disputes")),
    )
    for column in ("line_id", "buyer", "seller"):
        op.create_index(op.f(f"ix_disputes_{column}"), "disputes", [column])
    for table, column in _INDEXES:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])
    _bind_what_is_registered()


def downgrade() -> None:
    """Undo."""
    for table, column in _INDEXES:
        op.drop_index(op.f(f"ix_{table}_{column}"), table)
    for table in ("disputes", "asset_meters", "asset_devices", "locations", "clients"):
        op.drop_table(table)
    op.drop_table("organisations")


def _bind_what_is_registered() -> None:
    """Bind devices and meters of assets registered so far; of two claims the older id stands."""
    connection = op.get_bind()
    taken: set[str] = set()
    assets = sa.table("assets", sa.column("id"), sa.column("organisation"), sa.column("document"))
    names = ("device_id", "asset_id", "organisation")
    devices = sa.table("asset_devices", *(sa.column(name) for name in names))
    meters = sa.table(
        "asset_meters", *(sa.column(name) for name in ("series", "asset_id", "organisation"))
    )
    for row in connection.execute(sa.select(assets).order_by(assets.c.id)).all():
        document = json.loads(row.document)
        owner = {"asset_id": row.id, "organisation": row.organisation}
        for device in set(document["devices"]) - taken:
            taken.add(device)
            connection.execute(sa.insert(devices).values(device_id=device, **owner))
        connection.execute(sa.insert(meters).values(series=document["meter"], **owner))
