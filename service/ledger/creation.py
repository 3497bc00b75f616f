"""How a job comes into the ledger, and what of an earlier one it takes the place of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select, update

from service.ledger.rows import object_from
from service.ledger.schema import job_inputs, jobs, objects
from service.ledger.transactions import insert_all_missing, insert_missing
from service.records import JobState

if TYPE_CHECKING:
    from service.records import OutboxObject


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What the intake decides of a job; the ledger adds the rest."""

    id: str
    study_instance_uid: str
    pipeline: str
    pipeline_version: str
    model_sha256: str
    calling_ae: str
    called_ae: str
    priority: str
    sop_instance_uids: tuple[str, ...]


def create(
    connection: Connection, job: NewJob, *, now: float, supersedes: str = "", enqueued_at: float | None = None
) -> bool:
    """Write a job that waits for a worker, and end the one that it supersedes; False when it is there already."""
    values = {name: value for name, value in vars(job).items() if name != "sop_instance_uids"}
    created = insert_missing(
        connection,
        jobs,
        {
            **values,
            "state": JobState.QUEUED,
            "reason": "",
            "attempts": 0,
            "created_at": now,
            "updated_at": now,
            "supersedes": supersedes,
            "enqueued_at": now if enqueued_at is None else enqueued_at,
            "wake_ups": 0,
            "lease_token": 0,
            "lease_until": 0.0,
        },
    )
    if created:
        rows = [{"job_id": job.id, "sop_instance_uid": uid} for uid in job.sop_instance_uids]
        insert_all_missing(connection, job_inputs, rows)
        if supersedes:
            end_job(connection, supersedes, JobState.SUPERSEDED, f"superseded by job {job.id}: later instances", now)
    return created


def earlier(connection: Connection, job: NewJob) -> str:
    """Return the id of the newest job over the same study that a complete one supersedes; empty without one.

    One that read what the new one does not, because retention has deleted it since, keeps its place.
    """
    row = connection.execute(
        select(jobs.c.id)
        .where(
            jobs.c.study_instance_uid == job.study_instance_uid,
            jobs.c.pipeline == job.pipeline,
            jobs.c.called_ae == job.called_ae,
            jobs.c.state != JobState.SUPERSEDED,
            jobs.c.id != job.id,
        )
        .order_by(jobs.c.created_at.desc())
    ).first()
    if row is None:
        return ""
    inputs = connection.execute(select(job_inputs.c.sop_instance_uid).where(job_inputs.c.job_id == row.id)).scalars()
    return row.id if set(inputs) <= set(job.sop_instance_uids) else ""


def objects_to_replace(connection: Connection, job_id: str) -> list[OutboxObject]:
    """Return what the PACS shows already in place of what this job is about to make.

    That is the note of a job that was refused and is done again, else the objects of the nearest earlier job that
    made any: one that was superseded before it ran made none.
    """
    while job_id:
        made = connection.execute(select(objects).where(objects.c.job_id == job_id)).all()
        if made:
            return [object_from(row) for row in made]
        job_id = connection.execute(select(jobs.c.supersedes).where(jobs.c.id == job_id)).scalar() or ""
    return []


def end_job(connection: Connection, job_id: str, state: JobState, reason: str, now: float) -> None:
    """Give a job its last state, whoever holds it."""
    connection.execute(
        update(jobs).where(jobs.c.id == job_id).values(state=state, reason=reason, updated_at=now, lease_until=0.0)
    )
