"""Times that the clock left behind when it was set back or forth: without this, work would wait for as long."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import update

from service.ledger.schema import deliveries, jobs, open_associations, studies
from service.ledger.transactions import Ledger
from service.records import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement

STEP_S = 2.0
"""A clock that is adjusted gradually stays below this between two looks; one that is set goes beyond."""


class Steps:
    """Notices that the clock was set, beside a clock that nobody sets."""

    def __init__(self, clock: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._steady = clock, steady
        self._difference = clock() - steady()

    def happened(self) -> bool:
        """Tell whether the clock was set since the last call."""
        before, self._difference = self._difference, self._clock() - self._steady()
        return abs(self._difference - before) > STEP_S


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far ahead of now each kind of time can lie, in seconds."""

    job_lease_s: float
    delivery_lease_s: float
    delivery_pause_s: float
    confirmation_s: float
    association_s: float


class Timekeeping(Ledger):
    """Mends times in the ledger."""

    def begin_anew(self, *, association_s: float) -> None:
        """The clock was set: a study is quiet from now on, and an association that was open still is.

        Else a clock that goes forth would complete studies that are still arriving.
        """
        now = self.clock()
        with self.writing() as connection:
            connection.execute(update(studies).where(studies.c.complete.is_(False)).values(last_arrival=now))
            connection.execute(update(open_associations).values(expires_at=now + association_s))

    def pull_in(self, reach: Reach) -> int:
        """Bring every time that lies further ahead than it can into reach; return how many did.

        A clock that went back leaves leases, pauses and arrivals in the future. What was held or put off by them is
        held and put off for one usual while more.
        """
        now = self.clock()
        waiting, sent = deliveries.c.state == DeliveryState.PENDING, deliveries.c.state == DeliveryState.SENT
        # Who confirms late is asked again after as long as was waited so far.
        asked_again_by = 2 * now - deliveries.c.updated_at + reach.confirmation_s
        later_than: list[tuple[ColumnElement[float], ColumnElement[bool], float]] = [
            _beyond(jobs.c.lease_until, now + reach.job_lease_s),
            _beyond(deliveries.c.lease_until, now + reach.delivery_lease_s),
            _beyond(deliveries.c.next_attempt_at, now + reach.delivery_pause_s, waiting),
            (deliveries.c.next_attempt_at, sent & (deliveries.c.next_attempt_at > asked_again_by + STEP_S), now),
            _beyond(open_associations.c.expires_at, now + reach.association_s),
            _beyond(studies.c.last_arrival, now),
        ]
        with self.writing() as connection:
            return sum(
                connection.execute(update(column.table).where(found).values({column.name: instead})).rowcount
                for column, found, instead in later_than
            )


def _beyond(
    column: ColumnElement[float], latest: float, which: ColumnElement[bool] | None = None
) -> tuple[ColumnElement[float], ColumnElement[bool], float]:
    found = column > latest + STEP_S
    return column, found if which is None else found & which, latest
