"""Who holds a job: the statements that every job needs, built once, since that takes longer than running them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, and_, bindparam, exists, or_, update

from service.ledger.schema import jobs, objects
from service.records import JobState

if TYPE_CHECKING:
    from sqlalchemy import BindParameter, ColumnElement
    from sqlalchemy.sql.dml import ReturningUpdate

_NOW = bindparam("now", type_=Float)
_HELD = update(jobs).where(
    jobs.c.id == bindparam("held"), jobs.c.lease_token == bindparam("with_token"), jobs.c.state == JobState.RUNNING
)
RENEW = _HELD.values(lease_until=bindparam("until"))
"""Hold a job until `until`."""
FINISH = _HELD.values(state=bindparam("as_state"), reason=bindparam("why"), updated_at=_NOW, lease_until=0.0)
"""End a job as `as_state`, because of `why`."""
GIVE_BACK = FINISH.values(attempts=bindparam("tries"))
"""Likewise, and note how many attempts count."""


def claimable(now: float | BindParameter[float]) -> ColumnElement[bool]:
    """Jobs that nobody holds and that are not over."""
    return or_(
        jobs.c.state == JobState.QUEUED,
        and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until <= now),
    )


@cache
def claim() -> ReturningUpdate[Any]:
    """Take job `claimed` from `now` until `until`, unless it was tried `most` times; return its row.

    `noted` in it says that the job has made objects before: it was refused then, and is done again.
    """
    return (
        update(jobs)
        .where(jobs.c.id == bindparam("claimed"), claimable(_NOW), jobs.c.attempts < bindparam("most"))
        .values(
            state=JobState.RUNNING,
            attempts=jobs.c.attempts + 1,
            wake_ups=0,  # a call was answered: should the next one be lost, the sweep is not patient again
            lease_token=jobs.c.lease_token + 1,
            lease_until=bindparam("until"),
            updated_at=_NOW,
        )
        .returning(jobs, exists().where(objects.c.job_id == jobs.c.id).label("noted"))
    )
