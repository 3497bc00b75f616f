"""`pellucid migrate`."""

from __future__ import annotations

import click

from service.cli import UsageError, settings_of
from service.ledger.database import NEWEST, migrate_to, open_database
from service.ledger.report import Reports

ALIVE_WITHIN_S = 20.0


@click.command()
@click.option("--to", "revision", default=NEWEST, show_default=True, help="Schema of the version to go back to.")
@click.pass_context
def migrate(ctx: click.Context, revision: str) -> None:
    """Bring the ledger's schema to another revision: before a version is rolled back. Stop the processes first."""
    engine = open_database(settings_of(ctx).database_url)
    alive = sorted({report.name for report in Reports(engine).alive(within_s=ALIVE_WITHIN_S)})
    if revision < NEWEST and alive:
        raise UsageError(
            f"{', '.join(alive)} said within {ALIVE_WITHIN_S:.0f} s to be alive: stop them, then wait as long"
        )
    migrate_to(engine, revision)
    engine.dispose()
    click.echo(f"the ledger has schema {revision}")
