"""What the ledger keeps of a study: what came, what is done with it, what goes where. None holds patient data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One SOP instance that a peer stored, as the ledger knows it. It carries no patient data."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    """Modality (0008,0060); empty when the instance does not say."""
    sha256: str
    """Of the encoded data set as received, without the file meta information."""
    size: int
    """Bytes of the encoded data set."""
    key: str
    """Where the spool keeps it; see `service.spool.Spool`."""
    calling_ae: str
    called_ae: str
    address: str
    """IP address of the peer."""
    received_at: datetime
    """UTC."""
    ours: bool = False
    """True when Pellucid made it: stored, never processed."""


class JobState(StrEnum):
    """Where a job stands. `done` means its objects are in the outbox; deliveries have their own state."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one pipeline over one set of instances of a study."""

    id: str
    """Derived from study, inputs, pipeline and model: the same work always has the same id."""
    study_instance_uid: str
    pipeline: str
    pipeline_version: str
    model_sha256: str
    calling_ae: str
    called_ae: str
    sop_instance_uids: tuple[str, ...]
    """The inputs, sorted."""
    state: JobState
    reason: str
    """Why it was refused or failed, in words for an administrator; empty otherwise."""
    attempts: int
    created_at: datetime
    """UTC. Every date and time in the objects derives from it, so a repeated task writes equal bytes."""
    updated_at: datetime
    supersedes: str = ""
    """Id of the earlier job over fewer instances of the same study, if any."""


class DeliveryState(StrEnum):
    """Where one object stands on its way to one destination."""

    PENDING = "pending"
    SENT = "sent"
    """The peer took it, and is asked whether it has it."""
    DELIVERED = "delivered"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class OutboxObject:
    """One DICOM object that a job made, kept until every destination has it."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    job_id: str
    kind: str
    """The output that made it, for example `secondary-capture`."""
    key: str
    """Where the outbox keeps it, relative to its folder."""
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One object on its way to one destination."""

    object: OutboxObject
    destination: str
    """Name of a `[peers.NAME]` section, or `@AE TITLE` for the AE that sent the study."""
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    reason: str
    lease_token: int = 0
    """Of the claim that it came with."""
    sent_at: datetime | None = None
    """When the peer took it; None while it did not."""
