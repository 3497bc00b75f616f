"""`pellucid jobs` and `pellucid retry`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from service.cli import UsageError, settings_of
from service.ledger.database import open_database
from service.ledger.report import JobReport, Reports
from service.ledger.work import Work
from service.records import JobState
from service.terminal import terminal

if TYPE_CHECKING:
    from sqlalchemy import Engine


@click.command()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Newest jobs to show.")
@click.option("--study", default="", help="Only this Study Instance UID.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in JobState]),
    help="Only these; repeatable.",
)
@click.option("--undelivered", is_flag=True, help="Only those with an object that a destination does not have.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def jobs(
    ctx: click.Context, *, limit: int, study: str, states: tuple[str, ...], undelivered: bool, as_json: bool
) -> None:
    """List jobs with their state and its reason."""
    reports = Reports(_engine(ctx)).jobs(limit=limit, study_instance_uid=study, states=states, undelivered=undelivered)
    if as_json:
        click.echo(json.dumps([_as_dict(report) for report in reports], indent=2))
        return
    table = Table("job", "created (UTC)", "study", "pipeline", "state", "delivered", "reason")
    for report in reports:
        job = report.job
        table.add_row(
            job.id[:12],
            job.created_at.strftime("%Y-%m-%d %H:%M:%S"),
            f"…{job.study_instance_uid[-12:]}",
            job.pipeline,
            str(job.state),
            f"{report.delivered}/{report.objects}",
            "; ".join(filter(None, [job.reason, report.delivery_reason])),
        )
    terminal().print(table if reports else "no jobs")


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@click.pass_context
def retry(ctx: click.Context, jobs: tuple[str, ...]) -> None:
    """Do failed or refused jobs again, or send their rejected objects again.

    The first characters of a JOB's id are enough. Exit code 1: one of them needs no retry, and why.
    """
    engine = _engine(ctx)
    work = Work(engine)
    names = [_whole_id(engine, job) for job in jobs]
    needless = False
    for name in names:
        try:
            again = work.retry(name) is not None
        except ValueError as error:
            needless = True
            click.echo(f"Error: {error}", err=True)
        else:
            # The sweep of the listener wakes a worker within seconds.
            click.echo(f"job {name} is queued again" if again else f"job {name}: its rejected objects are sent again")
    ctx.exit(1 if needless else 0)


def _whole_id(engine: Engine, beginning: str) -> str:
    matches = Reports(engine).job_ids(beginning)
    if len(matches) != 1:
        raise UsageError(f"{'no' if not matches else 'more than one'} job begins with '{beginning}': see pellucid jobs")
    return matches[0]


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
