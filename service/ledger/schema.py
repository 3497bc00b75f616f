"""The tables. Times are seconds since 1970 (UTC). No column holds patient data beyond UIDs."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData()

PURGED = ""
"""In place of a key: the file was deleted by retention."""

instances = Table(
    "instances",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("series_instance_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("key", String(128), nullable=False, index=True),
    Column("ours", Boolean, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("received_at", Float, nullable=False),
)

# The same UID with other content: kept, never processed, for an administrator to look at.
set_aside = Table(
    "set_aside",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("key", String(128), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("received_at", Float, nullable=False),
    Column("reason", Text, nullable=False),
)

# What a peer said that a study consists of (Instance Availability Notification), until the study is complete.
announced = Table(
    "announced",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("announced_at", Float, nullable=False),
)

# An instance may be sent to several of our AE titles, each with pipelines of its own.
arrivals = Table(
    "arrivals",
    metadata,
    Column("sop_instance_uid", String(64), ForeignKey("instances.sop_instance_uid"), primary_key=True),
    Column("called_ae", String(16), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("assigned", Boolean, nullable=False),
    Index("arrivals_by_study", "study_instance_uid", "called_ae"),
)
Index("arrivals_unassigned", arrivals.c.assigned, sqlite_where=arrivals.c.assigned == false())

studies = Table(
    "studies",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("called_ae", String(16), primary_key=True),
    Column("last_arrival", Float, nullable=False),
    Column("complete", Boolean, nullable=False),
    Index("studies_incomplete", "complete", "last_arrival"),
)

open_associations = Table(
    "open_associations",
    metadata,
    Column("association", String(64), primary_key=True),
    Column("study_instance_uid", String(64), primary_key=True),
    Column("expires_at", Float, nullable=False),
    Index("open_associations_by_study", "study_instance_uid"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("pipeline", String(64), nullable=False),
    Column("pipeline_version", String(64), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("priority", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("supersedes", String(32), nullable=False),
    Column("enqueued_at", Float, nullable=False),
    Column("wake_ups", Integer, nullable=False),
    Column("lease_token", Integer, nullable=False),
    Column("lease_until", Float, nullable=False),
    Index("jobs_by_study", "study_instance_uid", "pipeline"),
    Index("jobs_by_state", "state", "enqueued_at"),
)

job_inputs = Table(
    "job_inputs",
    metadata,
    Column("job_id", String(32), ForeignKey("jobs.id"), primary_key=True),
    Column("sop_instance_uid", String(64), ForeignKey("instances.sop_instance_uid"), primary_key=True),
)

objects = Table(
    "objects",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("job_id", String(32), ForeignKey("jobs.id"), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("key", String(128), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("sop_instance_uid", String(64), ForeignKey("objects.sop_instance_uid"), primary_key=True),
    Column("destination", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Float, nullable=False),
    Column("lease_until", Float, nullable=False),
    # Rises with each claim: a sender that was overtaken has no say any more.
    Column("lease_token", Integer, nullable=False, server_default="0"),
    Column("updated_at", Float, nullable=False),
    Column("reason", Text, nullable=False),
    # Names the request for storage commitment that is under way (PS3.4 annex J); empty when there is none.
    Column("transaction_uid", String(64), nullable=False, server_default="", index=True),
    Index("deliveries_due", "state", "next_attempt_at"),
)

# Which processes are alive, for `doctor`, `serve` and the demo.
processes = Table(
    "processes",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("pid", Integer, primary_key=True),
    Column("host", String(255), primary_key=True),
    Column("detail", Text, nullable=False),
    Column("seen_at", Float, nullable=False),
)
