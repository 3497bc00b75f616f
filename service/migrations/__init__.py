"""Alembic migrations of the ledger. `service.ledger.database` runs them at start."""
