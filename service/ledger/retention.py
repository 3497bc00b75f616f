"""Which files may go. The rows stay: they hold UIDs and hashes, and keep a study from being analysed twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import exists, func, or_, select, update

from service.ledger.schema import PURGED, arrivals, deliveries, instances, job_inputs, jobs, objects, set_aside, studies
from service.ledger.transactions import Ledger
from service.records import DeliveryState, JobState

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select, Table

_UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Expired:
    """Files that may go."""

    keys: tuple[str, ...]
    bytes: int


class Retention(Ledger):
    """Finds what is old and needed by nobody, and marks it as deleted before its file is."""

    def expired_instances(self, *, before: float) -> Expired:
        """Old instances of which every job has ended, long ago too."""
        return self._sizes(select(instances.c.key, instances.c.size).where(_old_instance(before)))

    def expired_set_aside(self, *, before: float) -> Expired:
        """Old instances that were set aside; they have no job."""
        found = select(set_aside.c.key).where(set_aside.c.received_at < before, set_aside.c.key != PURGED)
        with self.reading() as connection:
            return Expired(keys=tuple(connection.execute(found).scalars()), bytes=0)

    def expired_objects(self, *, before: float) -> Expired:
        """Objects of jobs that ended long ago, delivered to every destination long ago."""
        return self._sizes(select(objects.c.key, objects.c.size).where(_old_object(before)))

    def held(self, *, before: float) -> int:
        """Count old objects that stay because a destination does not have them."""
        query = (
            select(func.count(objects.c.sop_instance_uid.distinct()))
            .join_from(objects, jobs)
            .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
            .where(objects.c.key != PURGED, jobs.c.updated_at < before, deliveries.c.state != DeliveryState.DELIVERED)
        )
        with self.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def take_instances(self, *, before: float) -> list[str]:
        """Mark a batch of old instances as deleted; the caller deletes the files. Empty: there is none left."""
        return self._take(instances, _old_instance(before))

    def take_set_aside(self, *, before: float) -> list[str]:
        """Mark a batch of old instances that were set aside as deleted."""
        return self._take(set_aside, (set_aside.c.received_at < before) & (set_aside.c.key != PURGED))

    def take_objects(self, *, before: float) -> list[str]:
        """Mark a batch of delivered objects as deleted."""
        return self._take(objects, _old_object(before))

    def known_object_key(self, key: str) -> bool:
        """Tell whether the ledger knows a file of the outbox."""
        with self.reading() as connection:
            return connection.execute(select(objects.c.key).where(objects.c.key == key).limit(1)).first() is not None

    def _sizes(self, query: Select[tuple[str, int]]) -> Expired:
        with self.reading() as connection:
            rows = connection.execute(query).all()
        return Expired(keys=tuple(row.key for row in rows), bytes=sum(row.size for row in rows))

    def _take(self, table: Table, condition: ColumnElement[bool]) -> list[str]:
        # Looked for and marked in one transaction, so that nothing that was needed meanwhile is taken.
        with self.writing() as connection:
            rows = connection.execute(
                select(*table.primary_key.columns, table.c.key).where(condition).limit(BATCH).with_for_update()
            ).all()
            for row in rows:
                this = [column == row._mapping[column.name] for column in table.primary_key.columns]  # noqa: SLF001
                connection.execute(update(table).where(*this).values(key=PURGED))
            return [row.key for row in rows]


def _old_instance(before: float) -> ColumnElement[bool]:
    needed = exists().where(
        job_inputs.c.sop_instance_uid == instances.c.sop_instance_uid,
        jobs.c.id == job_inputs.c.job_id,
        or_(jobs.c.state.in_(_UNFINISHED), jobs.c.updated_at >= before),
    )
    unlooked = exists().where(
        arrivals.c.sop_instance_uid == instances.c.sop_instance_uid, arrivals.c.assigned.is_(False)
    )
    incomplete = exists().where(
        studies.c.study_instance_uid == instances.c.study_instance_uid, studies.c.complete.is_(False)
    )
    return (instances.c.received_at < before) & (instances.c.key != PURGED) & ~needed & ~unlooked & ~incomplete


def _old_object(before: float) -> ColumnElement[bool]:
    wanted = exists().where(
        deliveries.c.sop_instance_uid == objects.c.sop_instance_uid,
        or_(deliveries.c.state != DeliveryState.DELIVERED, deliveries.c.updated_at >= before),
    )
    needed = exists().where(
        jobs.c.id == objects.c.job_id, or_(jobs.c.state.in_(_UNFINISHED), jobs.c.updated_at >= before)
    )
    return (objects.c.key != PURGED) & ~wanted & ~needed
