"""Jobs: made once, leased to one worker at a time, finished by the holder of the newest lease only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Row, bindparam, case, delete, func, select, update

from service.ledger import leases
from service.ledger.arrivals import inputs_of
from service.ledger.creation import create, earlier, end_job, objects_to_replace
from service.ledger.rows import delivery_row, job_from, object_row
from service.ledger.schema import PURGED, announced, arrivals, deliveries, jobs, objects, studies
from service.ledger.transactions import Ledger, insert_all_missing
from service.records import DeliveryState, Instance, Job, JobState, OutboxObject

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from service.ledger.creation import NewJob


# Built once: that takes longer than running it.
_LOOKED_AT = (
    update(arrivals)
    .where(arrivals.c.sop_instance_uid == bindparam("uid"), arrivals.c.called_ae == bindparam("title"))
    .values(assigned=True)
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job in the hands of one worker. The token fences off a worker that lost its lease."""

    job: Job
    token: int
    inputs: tuple[Instance, ...]
    replaced: tuple[OutboxObject, ...]
    """Its own earlier note, or the objects of the nearest earlier job that made any; this one supersedes them."""

    @property
    def held(self) -> dict[str, object]:
        """What a statement of `leases` asks for: the job, while this worker holds it."""
        return {"held": self.job.id, "with_token": self.token}


class LeaseLostError(Exception):
    """Another worker holds the job now, or it was superseded: what this one made is dropped."""


class Work(Ledger):
    """Jobs from creation to their last state."""

    def assign(self, new_jobs: Iterable[NewJob], looked_at: Iterable[Instance]) -> list[NewJob]:
        """Create jobs for instances and mark those as looked at, in one transaction.

        Returns:
            The jobs that did not exist before; wake a worker for each.
        """
        now = self.clock()
        with self.writing() as connection:
            created = [job for job in new_jobs if create(connection, job, now=now)]
            if seen := [{"uid": instance.sop_instance_uid, "title": instance.called_ae} for instance in looked_at]:
                connection.execute(_LOOKED_AT, seen)
            return created

    def complete_study(
        self, study_instance_uid: str, called_ae: str, last_arrival: float, new_jobs: Iterable[NewJob]
    ) -> list[NewJob]:
        """Create the jobs of a complete study; earlier jobs over fewer of its instances are superseded.

        Nothing happens when an instance arrived in between: the study is not complete after all.
        """
        with self.writing() as connection:
            closed = connection.execute(
                update(studies)
                .where(
                    studies.c.study_instance_uid == study_instance_uid,
                    studies.c.called_ae == called_ae,
                    studies.c.last_arrival == last_arrival,
                )
                .values(complete=True)
            )
            if not closed.rowcount:
                return []
            # Said once: what comes later is late, and waits for the quiet period.
            connection.execute(delete(announced).where(announced.c.study_instance_uid == study_instance_uid))
            now = self.clock()
            return [job for job in new_jobs if create(connection, job, now=now, supersedes=earlier(connection, job))]

    def wake(self, *job_ids: str) -> None:
        """Note that wake-up calls for jobs were sent."""
        with self.writing_once() as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(job_ids))
                .values(enqueued_at=self.clock(), wake_ups=jobs.c.wake_ups + 1)
            )

    def forgotten(self, *, patience_s: float, limit: int = 200) -> list[tuple[str, str]]:
        """Unfinished jobs that nobody holds and whose last wake-up call is old: (id, priority) of each.

        The patience doubles with every call, up to 64 times, so that a long queue is not filled with repeats. A job
        whose holder died waits for none: its last call was answered. Only a job that has ended more than one holder
        waits, for others' sake: it may well end the next one too.
        """
        now = self.clock()
        steps = ((jobs.c.wake_ups <= calls, patience_s * 2 ** (calls - 1)) for calls in range(1, 7))
        waited = func.abs(now - jobs.c.enqueued_at) >= case(*steps, else_=patience_s * 64)
        died = jobs.c.enqueued_at < jobs.c.lease_until
        suspected_for = patience_s * (jobs.c.attempts - 1)
        with self.reading() as connection:
            rows = connection.execute(
                select(jobs.c.id, jobs.c.priority)
                .where(leases.claimable(now), waited | (died & (func.abs(now - jobs.c.lease_until) >= suspected_for)))
                .order_by(jobs.c.enqueued_at)
                .limit(limit)
            )
            return [(row.id, row.priority) for row in rows]

    def claim(self, job_id: str, *, lease_s: float, maximum_attempts: int) -> Claim | None:
        """Take a job for `lease_s`; None when there is nothing to do: held, finished or unknown.

        A job whose attempts are used up becomes `failed` here, however its workers died.
        """
        now = self.clock()
        with self.writing_once() as connection:
            row = connection.execute(
                leases.claim(), {"claimed": job_id, "most": maximum_attempts, "now": now, "until": now + lease_s}
            ).first()
            if row is not None:
                return _claim_of(connection, row)
        with self.writing() as connection:
            _give_up(connection, job_id, now, maximum_attempts=maximum_attempts)
        return None

    def renew(self, claim: Claim, *, lease_s: float) -> bool:
        """Hold a job longer; False when it is somebody else's now."""
        with self.writing_once() as connection:
            return bool(connection.execute(leases.RENEW, {**claim.held, "until": self.clock() + lease_s}).rowcount)

    def finish(
        self,
        claim: Claim,
        made: Sequence[OutboxObject],
        destinations: Sequence[str],
        *,
        state: JobState = JobState.DONE,
        reason: str = "",
        kinds: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """End a job and put its objects up for delivery, in one transaction.

        Args:
            claim: the job.
            made: its objects.
            destinations: where they go.
            state: how it ended.
            reason: why, in words for an administrator.
            kinds: the kinds of objects that a destination is sent; one that is not named is sent all.

        Raises:
            LeaseLostError: the job is not this worker's any more; nothing was written.
        """
        now = self.clock()
        with self.writing() as connection:
            ended = connection.execute(leases.FINISH, {**claim.held, "as_state": state, "why": reason, "now": now})
            if not ended.rowcount:
                raise LeaseLostError
            insert_all_missing(connection, objects, [object_row(entry) for entry in made])
            insert_all_missing(
                connection,
                deliveries,
                [
                    delivery_row(entry, destination, now)
                    for entry in made
                    for destination in destinations
                    if kinds is None or destination not in kinds or entry.kind in kinds[destination]
                ],
            )

    def give_back(self, claim: Claim, *, reason: str, maximum_attempts: int, counts: bool = True) -> JobState:
        """A fault ended the attempt: queue the job again, or fail it when its attempts are used up.

        Args:
            claim: the job.
            reason: why, in words for an administrator.
            maximum_attempts: the job fails after so many.
            counts: False when neither the job nor its study is at fault, a full disk for example.
        """
        attempts = claim.job.attempts if counts else claim.job.attempts - 1
        state = JobState.FAILED if attempts >= maximum_attempts else JobState.QUEUED
        now = self.clock()
        with self.writing_once() as connection:
            connection.execute(
                leases.GIVE_BACK, {**claim.held, "as_state": state, "why": reason, "tries": attempts, "now": now}
            )
        return state

    def replace(self, claim: Claim, job: NewJob, *, reason: str) -> None:
        """End a job in favour of one that does the same work, and that takes the place of what the ended one made.

        A replacement that was itself replaced once, because versions went forth and back, is queued again.

        Raises:
            LeaseLostError: the job is not this worker's any more; nothing was written.
        """
        now = self.clock()
        with self.writing() as connection:
            if not connection.execute(leases.RENEW, {**claim.held, "until": 0.0}).rowcount:
                raise LeaseLostError
            # called at epoch 0, which is never: the next sweep wakes a worker
            if not create(connection, job, now=now, supersedes=claim.job.id, enqueued_at=0.0):
                connection.execute(
                    update(jobs)
                    .where(jobs.c.id == job.id, jobs.c.state == JobState.SUPERSEDED)
                    .values(state=JobState.QUEUED, reason="", attempts=0, enqueued_at=0.0, wake_ups=0, updated_at=now)
                )
            end_job(connection, claim.job.id, JobState.SUPERSEDED, reason, now)

    def retry(self, job_id: str) -> str | None:
        """Do a failed or refused job again, or send rejected objects of a finished one again.

        Returns:
            The job's priority, for waking a worker; None when it only sends again.

        Raises:
            ValueError: there is nothing to retry; the text says why.
        """
        now = self.clock()
        with self.writing() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
            if row is None:
                raise ValueError(f"there is no job {job_id}")
            if row.state in (JobState.FAILED, JobState.REFUSED):
                if any(instance.key == PURGED for instance in inputs_of(connection, job_id)):
                    raise ValueError(f"the images of job {job_id} were deleted by retention: send them again first")
                connection.execute(
                    update(jobs)
                    .where(jobs.c.id == job_id)
                    .values(
                        state=JobState.QUEUED,
                        attempts=0,
                        reason="",
                        enqueued_at=0.0,
                        wake_ups=0,
                        updated_at=now,
                    )
                )
                return str(row.priority)
            if not _resend(connection, job_id, now):
                raise ValueError(f"job {job_id} is {row.state} and none of its objects was rejected")
            return None


def _claim_of(connection: Connection, row: Row[tuple[object, ...]]) -> Claim:
    inputs = tuple(inputs_of(connection, row.id))
    return Claim(
        job=job_from(row, [instance.sop_instance_uid for instance in inputs]),
        token=row.lease_token,
        inputs=inputs,
        replaced=tuple(objects_to_replace(connection, row.id if row.noted else row.supersedes)),
    )


def _give_up(connection: Connection, job_id: str, now: float, *, maximum_attempts: int) -> None:
    """End a job whose attempts are used up; one that is held, finished or unknown stays as it is."""
    row = connection.execute(
        select(jobs.c.attempts, jobs.c.reason)
        .where(jobs.c.id == job_id, leases.claimable(now), jobs.c.attempts >= maximum_attempts)
        .with_for_update(skip_locked=True)
    ).first()
    if row is not None:
        reason = f"gave up after {row.attempts} attempts; the last one ended without an answer"
        end_job(connection, job_id, JobState.FAILED, row.reason or reason, now)


def _resend(connection: Connection, job_id: str, now: float) -> int:
    of_job = select(objects.c.sop_instance_uid).where(objects.c.job_id == job_id)
    return connection.execute(
        update(deliveries)
        .where(deliveries.c.sop_instance_uid.in_(of_job), deliveries.c.state == DeliveryState.REJECTED)
        .values(state=DeliveryState.PENDING, next_attempt_at=now, attempts=0, updated_at=now)
    ).rowcount
