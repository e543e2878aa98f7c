"""The writer counts its commits: after a lost connection it can tell what came through."""

import sqlalchemy as sa
from alembic import op

revision = "0002_store"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("journal_heads", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("commits", sa.BigInteger(), nullable=False, server_default="0")
        )


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("journal_heads", schema=None) as batch_op:
        batch_op.drop_column("commits")
