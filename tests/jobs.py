"""A job and an object of one, as the ledger takes them."""

from __future__ import annotations

from service.ledger.creation import NewJob
from service.records import OutboxObject

LEASE = {"lease_s": 10.0, "maximum_attempts": 3}


def new_job(name: str = "j1", *uids: str) -> NewJob:
    """Make a job over instances of study 1.2.3."""
    return NewJob(
        id=name,
        study_instance_uid="1.2.3",
        pipeline="p",
        pipeline_version="1",
        model_sha256="b" * 64,
        calling_ae="PACS",
        called_ae="PELLUCID",
        priority="routine",
        sop_instance_uids=uids or ("1",),
    )


def outbox_object(job: str = "j1", uid: str = "9", kind: str = "secondary-capture") -> OutboxObject:
    """Make an object of a job."""
    return OutboxObject(
        sop_instance_uid=uid,
        sop_class_uid="1",
        study_instance_uid="1.2.3",
        series_instance_uid="1",
        transfer_syntax_uid="1",
        job_id=job,
        kind=kind,
        key="k",
        sha256="s",
        size=1,
    )
