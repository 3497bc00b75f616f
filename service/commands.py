"""`pellucid jobs` and `pellucid retry`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from service.cli import UsageError, settings_of
from service.ledger.database import open_database
from service.ledger.report import JobReport, Reports
from service.ledger.work import Work
from service.queue import enqueue, make_app

if TYPE_CHECKING:
    from sqlalchemy import Engine


@click.command()
@click.option("--limit", default=50, show_default=True, help="Newest jobs to show.")
@click.option("--study", default="", help="Only this Study Instance UID.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def jobs(ctx: click.Context, limit: int, study: str, as_json: bool) -> None:
    """List jobs with their state and its reason."""
    reports = Reports(_engine(ctx)).jobs(limit=limit, study_instance_uid=study)
    if as_json:
        click.echo(json.dumps([_as_dict(report) for report in reports], indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table("job", "created (UTC)", "pipeline", "state", "delivered", "reason", title=f"{len(reports)} jobs")
    for report in reports:
        job = report.job
        table.add_row(
            job.id[:12],
            job.created_at.strftime("%Y-%m-%d %H:%M:%S"),
            job.pipeline,
            str(job.state),
            f"{report.delivered}/{report.objects}",
            job.reason or report.delivery_reason,
        )
    console.print(table)


@click.command()
@click.argument("job")
@click.pass_context
def retry(ctx: click.Context, job: str) -> None:
    """Do a failed or refused JOB again (the first characters of its id are enough)."""
    engine = _engine(ctx)
    matches = Reports(engine).job_ids(job)
    if len(matches) != 1:
        raise UsageError(f"{'no' if not matches else 'more than one'} job begins with '{job}': see pellucid jobs")
    work = Work(engine)
    try:
        priority = work.retry(matches[0])
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if priority is None:
        click.echo(f"job {matches[0]}: its rejected objects will be sent again")
        return
    enqueue(make_app(settings_of(ctx)), matches[0], priority)
    work.wake(matches[0])
    click.echo(f"job {matches[0]} is queued again")


def _engine(ctx: click.Context) -> Engine:
    return open_database(settings_of(ctx).database_url)


def _as_dict(report: JobReport) -> dict[str, Any]:
    job = report.job
    return {
        "id": job.id,
        "study_instance_uid": job.study_instance_uid,
        "pipeline": job.pipeline,
        "pipeline_version": job.pipeline_version,
        "model_sha256": job.model_sha256,
        "state": str(job.state),
        "reason": job.reason,
        "attempts": job.attempts,
        "images": len(job.sop_instance_uids),
        "created_at": job.created_at.isoformat(),
        "updated_at": job.updated_at.isoformat(),
        "supersedes": job.supersedes,
        "objects": report.objects,
        "delivered": report.delivered,
        "rejected": report.rejected,
        "delivery_reason": report.delivery_reason,
        "delivered_at": report.delivered_at.isoformat() if report.delivered_at else None,
    }
