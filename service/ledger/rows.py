"""Rows of the ledger to values, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.ledger.schema import objects
from service.ledger.transactions import moment
from service.records import DeliveryState, Job, JobState, OutboxObject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept of one SOP Instance UID, by spool keys."""

    first: str
    """The content that came first; empty when none did, or when its file was purged."""
    others: Mapping[str, float]
    """Other contents under the same UID, with the time when each was last received."""


def job_from(row: Row[tuple[object, ...]], uids: Sequence[str]) -> Job:
    """Make the value of a row of `jobs`."""
    return Job(
        id=row.id,
        study_instance_uid=row.study_instance_uid,
        pipeline=row.pipeline,
        pipeline_version=row.pipeline_version,
        model_sha256=row.model_sha256,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        sop_instance_uids=tuple(uids),
        state=JobState(row.state),
        reason=row.reason,
        attempts=row.attempts,
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
        supersedes=row.supersedes,
    )


def object_from(row: Row[tuple[object, ...]]) -> OutboxObject:
    """Make the value of a row of `objects`."""
    return OutboxObject(**{column.name: row._mapping[column.name] for column in objects.columns})  # noqa: SLF001


def object_row(entry: OutboxObject) -> dict[str, object]:
    """Make a row of `objects`."""
    return {column.name: getattr(entry, column.name) for column in objects.columns}


def delivery_row(entry: OutboxObject, destination: str, now: float) -> dict[str, object]:
    """Make a row of `deliveries` that is due at once."""
    return {
        "sop_instance_uid": entry.sop_instance_uid,
        "destination": destination,
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "next_attempt_at": now,
        "lease_until": 0.0,
        "updated_at": now,
        "reason": "",
    }
