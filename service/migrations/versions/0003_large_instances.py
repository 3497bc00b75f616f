"""Sizes beyond 2 GiB, and claims of deliveries that later ones overtake."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen and add. SQLite's integers have 64 bits already, and a change would copy its tables."""
    if op.get_bind().dialect.name != "sqlite":
        for table in ("instances", "objects"):
            op.alter_column(table, "size", type_=sa.BigInteger, existing_type=sa.Integer, existing_nullable=False)
    inspector = sa.inspect(op.get_bind())
    if "lease_token" not in {column["name"] for column in inspector.get_columns("deliveries")}:
        op.add_column("deliveries", sa.Column("lease_token", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop what the version before would not miss; it lives with wide sizes."""
    op.drop_column("deliveries", "lease_token")
