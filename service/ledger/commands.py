"""`pellucid migrate`."""

from __future__ import annotations

import click

from service.cli import settings_of
from service.ledger.database import NEWEST, migrate_to, open_database


@click.command()
@click.option("--to", "revision", default=NEWEST, show_default=True, help="Schema of the version to go back to.")
@click.pass_context
def migrate(ctx: click.Context, revision: str) -> None:
    """Bring the ledger's schema to another revision: before a version is rolled back. Stop the processes first."""
    engine = open_database(settings_of(ctx).database_url)
    migrate_to(engine, revision)
    engine.dispose()
    click.echo(f"the ledger has schema {revision}")
