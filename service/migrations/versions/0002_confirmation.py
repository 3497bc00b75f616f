"""Deliveries that wait for confirmation, announced studies, and finding a spool file's row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from service.ledger.schema import announced

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is missing: the first migration makes new databases as the code knows them today."""
    inspector = sa.inspect(op.get_bind())
    announced.create(op.get_bind(), checkfirst=True)
    if "transaction_uid" not in {column["name"] for column in inspector.get_columns("deliveries")}:
        op.add_column("deliveries", sa.Column("transaction_uid", sa.String(64), nullable=False, server_default=""))
        op.create_index("ix_deliveries_transaction_uid", "deliveries", ["transaction_uid"])
    if "ix_instances_key" not in {index["name"] for index in inspector.get_indexes("instances")}:
        op.create_index("ix_instances_key", "instances", ["key"])


def downgrade() -> None:
    """Take it away again; what waited for confirmation is sent again."""
    op.execute("UPDATE deliveries SET state = 'pending' WHERE state = 'sent'")
    op.drop_index("ix_instances_key", "instances")
    op.drop_index("ix_deliveries_transaction_uid", "deliveries")
    op.drop_column("deliveries", "transaction_uid")
    op.drop_table("announced")
