"""Books full of jobs, for `pellucid bench scale`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from service.ledger import schema
from service.ledger.creation import NewJob
from service.records import DeliveryState, Instance, JobState, OutboxObject

if TYPE_CHECKING:
    from sqlalchemy import Engine

STUDY = "2.25.1"
DESTINATION = "bench"
OBJECT_BYTES = 20_000
_FILL_AT_ONCE = 5000


def unfinished(engine: Engine) -> int:
    """Count jobs that have not ended."""
    with engine.connect() as connection:
        running = schema.jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
        query = select(func.count()).select_from(schema.jobs).where(running)
        return int(connection.execute(query).scalar_one())


def count_jobs(engine: Engine) -> int:
    """Count all jobs."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(schema.jobs)).scalar_one())


def fill(engine: Engine, jobs: int) -> None:
    """Put finished and delivered jobs into the ledger until it has so many."""
    missing = jobs - count_jobs(engine)
    now = time.time()
    for first in range(0, max(0, missing), _FILL_AT_ONCE):
        uids = [f"2.25.9{jobs}{number:09d}" for number in range(first, min(first + _FILL_AT_ONCE, missing))]
        rows = [(uid, make_job(uid)) for uid in uids]
        with engine.begin() as connection:
            connection.execute(
                insert(schema.instances),
                [{**vars(make_instance(uid, uid, "0" * 64)), "received_at": now} for uid in uids],
            )
            connection.execute(
                insert(schema.arrivals),
                [
                    {
                        "sop_instance_uid": uid,
                        "called_ae": "PELLUCID",
                        "study_instance_uid": STUDY,
                        "calling_ae": "BENCH",
                        "assigned": True,
                    }
                    for uid in uids
                ],
            )
            connection.execute(insert(schema.jobs), [_finished(job, now) for _, job in rows])
            connection.execute(
                insert(schema.job_inputs), [{"job_id": job.id, "sop_instance_uid": uid} for uid, job in rows]
            )
            connection.execute(insert(schema.objects), [vars(make_object(uid, job.id, uid)) for uid, job in rows])
            connection.execute(insert(schema.deliveries), [_delivered(uid, now) for uid in uids])


def make_instance(uid: str, key: str, sha256: str, size: int = OBJECT_BYTES) -> Instance:
    """Describe one received instance."""
    return Instance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        study_instance_uid=f"{uid}.1",
        series_instance_uid=f"{uid}.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="DX",
        sha256=sha256,
        size=size,
        key=key,
        calling_ae="BENCH",
        called_ae="PELLUCID",
        address="127.0.0.1",
        received_at=datetime.now(UTC),
    )


def make_job(uid: str) -> NewJob:
    """Describe the job over one instance."""
    return NewJob(
        id=uid.removeprefix("2.25.").rjust(32, "0")[-32:],
        study_instance_uid=f"{uid}.1",
        pipeline="bench",
        pipeline_version="1",
        model_sha256="0" * 64,
        calling_ae="BENCH",
        called_ae="PELLUCID",
        priority="routine",
        sop_instance_uids=(uid,),
    )


def _finished(job: NewJob, now: float) -> dict[str, object]:
    values = {name: value for name, value in vars(job).items() if name != "sop_instance_uids"}
    ended = {"state": JobState.DONE, "reason": "", "attempts": 1, "supersedes": "", "lease_until": 0.0}
    times = {"created_at": now, "updated_at": now, "enqueued_at": now, "wake_ups": 1, "lease_token": 1}
    return {**values, **ended, **times}


def make_object(uid: str, job_id: str, key: str) -> OutboxObject:
    """Describe what the job over an instance makes."""
    return OutboxObject(
        sop_instance_uid=f"{uid}.9",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        study_instance_uid=f"{uid}.1",
        series_instance_uid=f"{uid}.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        job_id=job_id,
        kind="secondary-capture",
        key=key,
        sha256="0" * 64,
        size=OBJECT_BYTES,
    )


def _delivered(uid: str, now: float) -> dict[str, object]:
    return {
        "sop_instance_uid": f"{uid}.9",
        "destination": DESTINATION,
        "state": DeliveryState.DELIVERED,
        "attempts": 1,
        "next_attempt_at": now,
        "lease_until": 0.0,
        "updated_at": now,
        "reason": "",
    }


def settle(engine: Engine) -> None:
    """Call everything delivered."""
    with engine.begin() as connection:
        connection.execute(update(schema.deliveries).values(state=DeliveryState.DELIVERED))
