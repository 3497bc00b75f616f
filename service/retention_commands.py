"""`pellucid purge`."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from service.audit.trail import open_log, open_trail
from service.cli import settings_of
from service.ledger.database import open_database
from service.observe import configure_logging
from service.outbox import open_outbox
from service.retention import Keeper
from service.spool import open_spool

if TYPE_CHECKING:
    import threading

    from service.settings import Settings

log = logging.getLogger(__name__)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def purge(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Delete what is older than [retention] keeps it, and nothing that is not delivered or still needed."""
    settings = settings_of(ctx)
    configure_logging("purge", form=settings.log.format)
    keeper = open_keeper(settings)
    found = keeper.look() if dry_run else keeper.purge()
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, **asdict(found)}))
        return
    verb = "would delete" if dry_run else "deleted"
    click.echo(
        f"{verb} {found.instances} instances, {found.results} results ({found.bytes >> 20} MB), "
        f"{found.orphans} files that no row names, {found.audit_segments} days of the audit log"
    )
    if found.held:
        click.echo(f"{found.held} old results stay, because a destination lacks them: see pellucid jobs --undelivered")
    kept = settings.retention
    if not (kept.instances_days or kept.results_days or kept.audit_days):
        click.echo("[retention] keeps everything for ever: set instances_days, results_days, audit_days")


def purge_regularly(settings: Settings, stop: threading.Event) -> None:
    """Purge every `retention.interval_h` until told to stop; a failure is logged and tried again then."""
    keeper = open_keeper(settings)
    while not stop.is_set():
        try:
            done = keeper.purge()
        except Exception as error:  # noqa: BLE001 -- the outer loop of its thread
            log.error("purging failed: %s", type(error).__name__)  # noqa: TRY400
        else:
            log.info(
                "purged %d instances and %d results; %d wait for delivery", done.instances, done.results, done.held
            )
        stop.wait(settings.retention.interval_h * 3600)


def open_keeper(settings: Settings) -> Keeper:
    """Build the keeper of the state directory."""
    return Keeper(
        settings,
        open_database(settings.database_url),
        spool=open_spool(settings),
        outbox=open_outbox(settings),
        audit_log=open_log(settings),
        trail=open_trail(settings, "purge"),
    )
