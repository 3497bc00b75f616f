"""Objects on their way to the PACS: leased to one sender, retried for ever, each with its last answer."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from service.ledger.schema import deliveries, objects
from service.ledger.transactions import Ledger, moment
from service.ledger.work import object_from
from service.types import Delivery, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement


class Deliveries(Ledger):
    """What a sender needs to know and to write down."""

    def due_destinations(self) -> list[str]:
        """Destinations for which something may be sent now."""
        with self.reading() as connection:
            return list(connection.execute(select(deliveries.c.destination).where(self._due()).distinct()).scalars())

    def claim(self, destination: str, *, lease_s: float, limit: int = 50) -> list[Delivery]:
        """Take due deliveries of one destination, oldest first; another sender gets others."""
        now = self.clock()
        with self.writing() as connection:
            rows = connection.execute(
                select(deliveries, objects)
                .join_from(deliveries, objects)
                .where(self._due(), deliveries.c.destination == destination)
                .order_by(deliveries.c.next_attempt_at, objects.c.job_id, objects.c.kind, objects.c.sop_instance_uid)
                .limit(limit)
                .with_for_update(skip_locked=True, of=deliveries)
            ).all()
            uids = [row.sop_instance_uid for row in rows]
            connection.execute(
                update(deliveries)
                .where(deliveries.c.sop_instance_uid.in_(uids), deliveries.c.destination == destination)
                .values(lease_until=now + lease_s)
            )
        return [
            Delivery(
                object=object_from(row),
                destination=destination,
                state=DeliveryState(row.state),
                attempts=row.attempts,
                next_attempt_at=moment(row.next_attempt_at),
                reason=row.reason,
            )
            for row in rows
        ]

    def delivered(self, delivery: Delivery, *, reason: str = "") -> None:
        """The PACS has the object; `reason` holds its warning, if any."""
        self._settle(delivery, state=DeliveryState.DELIVERED, reason=reason)

    def rejected(self, delivery: Delivery, *, reason: str) -> None:
        """The PACS will never take this object; an administrator must act and `pellucid retry`."""
        self._settle(delivery, state=DeliveryState.REJECTED, reason=reason)

    def postpone(self, batch: Iterable[Delivery], *, reason: str, first_s: float, longest_s: float) -> None:
        """Try again after a pause that doubles with each attempt, with jitter so that senders spread."""
        now = self.clock()
        with self.writing() as connection:
            for delivery in batch:
                pause = min(longest_s, first_s * 2 ** min(delivery.attempts, 30))
                connection.execute(
                    update(deliveries)
                    .where(_this(delivery))
                    .values(
                        attempts=delivery.attempts + 1,
                        next_attempt_at=now + pause * random.uniform(0.5, 1.0),  # noqa: S311
                        lease_until=0.0,
                        updated_at=now,
                        reason=reason,
                    )
                )

    def _settle(self, delivery: Delivery, *, state: DeliveryState, reason: str) -> None:
        with self.writing() as connection:
            connection.execute(
                update(deliveries)
                .where(_this(delivery))
                .values(
                    state=state,
                    attempts=delivery.attempts + 1,
                    lease_until=0.0,
                    updated_at=self.clock(),
                    reason=reason,
                )
            )

    def _due(self) -> ColumnElement[bool]:
        now = self.clock()
        return (
            (deliveries.c.state == DeliveryState.PENDING)
            & (deliveries.c.next_attempt_at <= now)
            & (deliveries.c.lease_until <= now)
        )


def _this(delivery: Delivery) -> ColumnElement[bool]:
    return (deliveries.c.sop_instance_uid == delivery.object.sop_instance_uid) & (
        deliveries.c.destination == delivery.destination
    )
