"""What people and probes ask the ledger: jobs with their deliveries, processes that are alive."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select

from service.ledger.rows import job_from, object_from
from service.ledger.schema import PURGED, deliveries, instances, job_inputs, jobs, objects, processes, set_aside
from service.ledger.transactions import Ledger, moment, put
from service.records import DeliveryState, Job, JobState, OutboxObject

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

_FORGOTTEN_AFTER_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """A job with what became of its objects."""

    job: Job
    objects: int
    """Pairs of object and destination."""
    delivered: int
    rejected: int
    delivery_reason: str
    """The last trouble with a delivery that is not through yet."""
    delivered_at: datetime | None
    """When the last object arrived; None while any is on its way."""


@dataclass(frozen=True, kw_only=True)
class ProcessReport:
    """A process that announced itself."""

    name: str
    pid: int
    host: str
    detail: str
    age_s: float


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What waits."""

    jobs: dict[str, int]
    """By state."""
    undelivered: dict[tuple[str, str], int]
    """Objects by destination and state."""
    queue_age_s: float
    """Of the oldest job that no worker has begun; 0 without one."""
    outbox_age_s: float
    """Of the oldest object that waits for delivery or its confirmation, since its job ended."""
    set_aside: int
    """Instances that lie aside; purged ones do not count."""


class Reports(Ledger):
    """Read-only views, and the heartbeat that feeds one of them."""

    def jobs(
        self,
        *,
        limit: int = 200,
        study_instance_uid: str = "",
        states: Collection[str] = (),
        undelivered: bool = False,
    ) -> list[JobReport]:
        """Newest jobs first.

        Args:
            limit: at most so many.
            study_instance_uid: only of this study.
            states: only in these; empty: in any.
            undelivered: only those with an object that a destination does not have.
        """
        query = select(jobs).order_by(jobs.c.created_at.desc()).limit(limit)
        if study_instance_uid:
            query = query.where(jobs.c.study_instance_uid == study_instance_uid)
        if states:
            query = query.where(jobs.c.state.in_(states))
        if undelivered:
            on_its_way = select(objects.c.job_id).join(deliveries).where(deliveries.c.state != DeliveryState.DELIVERED)
            query = query.where(jobs.c.id.in_(on_its_way))
        with self.reading() as connection:
            reports = []
            for row in connection.execute(query).all():
                uids = connection.execute(
                    select(job_inputs.c.sop_instance_uid).where(job_inputs.c.job_id == row.id)
                ).scalars()
                sent = connection.execute(
                    select(deliveries).join_from(deliveries, objects).where(objects.c.job_id == row.id)
                ).all()
                waiting = [entry for entry in sent if entry.state != DeliveryState.DELIVERED]
                reports.append(
                    JobReport(
                        job=job_from(row, sorted(uids)),
                        objects=len(sent),
                        delivered=len(sent) - len(waiting),
                        rejected=sum(entry.state == DeliveryState.REJECTED for entry in sent),
                        delivery_reason=next((entry.reason for entry in waiting if entry.reason), ""),
                        delivered_at=moment(max(entry.updated_at for entry in sent)) if sent and not waiting else None,
                    )
                )
            return reports

    def objects_of(self, job_id: str) -> list[OutboxObject]:
        """What a job made, Secondary Captures before reports."""
        with self.reading() as connection:
            rows = connection.execute(
                select(objects).where(objects.c.job_id == job_id).order_by(objects.c.kind, objects.c.sop_instance_uid)
            )
            return [object_from(row) for row in rows]

    def job_ids(self, prefix: str) -> list[str]:
        """Ids that begin with a prefix."""
        with self.reading() as connection:
            return list(connection.execute(select(jobs.c.id).where(jobs.c.id.startswith(prefix)).limit(3)).scalars())

    def answers(self) -> None:
        """Ask next to nothing: it raises when the ledger is away."""
        with self.reading() as connection:
            connection.execute(select(jobs.c.id).limit(1))

    def first_arrival(self) -> datetime | None:
        """When the first instance that the ledger knows came; purged ones keep their rows."""
        with self.reading() as connection:
            received_at = connection.execute(select(func.min(instances.c.received_at))).scalar()
            return None if received_at is None else moment(received_at)

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self.reading() as connection:
            rows = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
            return {state: count for state, count in rows}  # noqa: C416

    def backlog(self) -> Backlog:
        """Count what waits, and for how long."""
        now = self.clock()
        with self.reading() as connection:
            queued = select(func.min(jobs.c.created_at)).where(jobs.c.state == JobState.QUEUED)
            waiting = (
                select(func.min(jobs.c.updated_at))
                .join_from(deliveries, objects)
                .join(jobs)
                .where(deliveries.c.state.in_((DeliveryState.PENDING, DeliveryState.SENT)))
            )
            per_destination = (
                select(deliveries.c.destination, deliveries.c.state, func.count())
                .where(deliveries.c.state.in_([state for state in DeliveryState if state != DeliveryState.DELIVERED]))
                .group_by(deliveries.c.destination, deliveries.c.state)
            )
            aside = select(func.count()).select_from(set_aside).where(set_aside.c.key != PURGED)
            states = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
            return Backlog(
                jobs={state: count for state, count in states},  # noqa: C416
                undelivered={(to, state): count for to, state, count in connection.execute(per_destination)},
                queue_age_s=_age(connection.execute(queued).scalar(), now),
                outbox_age_s=_age(connection.execute(waiting).scalar(), now),
                set_aside=connection.execute(aside).scalar_one(),
            )

    def announce(self, name: str, detail: str = "") -> None:
        """Say that this process is alive and ready; forget those that are long gone."""
        with self.writing() as connection:
            connection.execute(delete(processes).where(processes.c.seen_at < self.clock() - _FORGOTTEN_AFTER_S))
            put(
                connection,
                processes,
                {
                    "name": name,
                    "pid": os.getpid(),
                    "host": socket.gethostname(),
                    "detail": detail,
                    "seen_at": self.clock(),
                },
            )

    def alive(self, *, within_s: float) -> list[ProcessReport]:
        """Processes that announced themselves lately."""
        now = self.clock()
        with self.reading() as connection:
            rows = connection.execute(select(processes).where(processes.c.seen_at >= now - within_s))
            return [
                ProcessReport(name=row.name, pid=row.pid, host=row.host, detail=row.detail, age_s=now - row.seen_at)
                for row in rows
            ]


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else max(0.0, now - since)
