"""Objects on their way to the PACS: leased to one sender, retried for ever, each with its last answer."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from service.ledger.rows import object_from
from service.ledger.schema import deliveries, objects
from service.ledger.transactions import Ledger, moment
from service.records import Delivery, DeliveryState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Row


class Deliveries(Ledger):
    """What a sender needs to know and to write down."""

    def due_destinations(self, state: DeliveryState = DeliveryState.PENDING) -> list[str]:
        """Destinations for which something may be sent now, or asked for when it is `sent`."""
        with self.reading() as connection:
            found = select(deliveries.c.destination).where(self._due(state)).distinct()
            return list(connection.execute(found).scalars())

    def claim(
        self, destination: str, *, lease_s: float, limit: int = 50, state: DeliveryState = DeliveryState.PENDING
    ) -> list[Delivery]:
        """Take due deliveries of one destination, oldest first; another sender gets others."""
        now = self.clock()
        with self.writing() as connection:
            rows = connection.execute(
                select(deliveries, objects)
                .join_from(deliveries, objects)
                .where(self._due(state), deliveries.c.destination == destination)
                .order_by(deliveries.c.next_attempt_at, objects.c.job_id, objects.c.kind, objects.c.sop_instance_uid)
                .limit(limit)
                .with_for_update(skip_locked=True, of=deliveries)
            ).all()
            uids = [row.sop_instance_uid for row in rows]
            connection.execute(
                update(deliveries)
                .where(deliveries.c.sop_instance_uid.in_(uids), deliveries.c.destination == destination)
                .values(lease_until=now + lease_s, lease_token=deliveries.c.lease_token + 1)
            )
        return [replace(entry, lease_token=entry.lease_token + 1) for entry in map(_delivery, rows)]

    def renew(self, batch: Iterable[Delivery], *, lease_s: float) -> None:
        """Hold on to what is still being sent; what is settled, or another sender's by now, stays as it is."""
        until = self.clock() + lease_s
        with self.writing_once() as connection:
            for delivery in batch:
                connection.execute(
                    update(deliveries).where(_held(delivery), deliveries.c.lease_until > 0).values(lease_until=until)
                )

    def sent(self, delivery: Delivery) -> None:
        """The PACS took the object; it counts as delivered once the PACS says that it has it."""
        now = self.clock()
        self._settle(delivery, state=DeliveryState.SENT, reason="", next_attempt_at=now, transaction_uid="")

    def asked(self, batch: Iterable[Delivery], *, transaction_uid: str, again_after_s: float, reason: str = "") -> None:
        """Note under which name confirmation is asked for, and when to ask again if nothing comes."""
        now = self.clock()
        with self.writing() as connection:
            for delivery in batch:
                connection.execute(
                    update(deliveries)
                    .where(_held(delivery))
                    .values(
                        transaction_uid=transaction_uid,
                        next_attempt_at=now + again_after_s,
                        lease_until=0.0,
                        reason=reason,
                    )
                )

    def of_transaction(self, transaction_uid: str) -> list[Delivery]:
        """Deliveries that wait for the answer to one request for commitment."""
        with self.reading() as connection:
            rows = connection.execute(
                select(deliveries, objects)
                .join_from(deliveries, objects)
                .where(deliveries.c.transaction_uid == transaction_uid, deliveries.c.state == DeliveryState.SENT)
            ).all()
            return [_delivery(row) for row in rows]

    def delivered(self, delivery: Delivery, *, reason: str = "") -> None:
        """The PACS has the object; `reason` holds its warning, if any."""
        self._settle(delivery, state=DeliveryState.DELIVERED, reason=reason)

    def rejected(self, delivery: Delivery, *, reason: str) -> None:
        """The PACS will never take this object; an administrator must act and `pellucid retry`."""
        self._settle(delivery, state=DeliveryState.REJECTED, reason=reason, where=_held(delivery))

    def postpone(self, batch: Iterable[Delivery], *, reason: str, first_s: float, longest_s: float) -> None:
        """Try again after a pause that doubles with each attempt, with jitter so that senders spread."""
        with self.writing() as connection:
            for delivery in batch:
                pause = _pause(delivery, first_s, longest_s)
                self._try_again(connection, delivery, at=self.clock() + pause, reason=reason)

    def hold(self, batch: Sequence[Delivery], *, reason: str, first_s: float, longest_s: float) -> None:
        """The destination of a batch is away: try nothing for it before the pause of its first object is over.

        So a destination that is down for hours is asked once a pause, however many objects wait for it.
        """
        now = self.clock()
        again = now + _pause(batch[0], first_s, longest_s)
        with self.writing() as connection:
            for delivery in batch:
                self._try_again(connection, delivery, at=again, reason=reason)
            connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.destination == batch[0].destination,
                    deliveries.c.state == DeliveryState.PENDING,
                    deliveries.c.next_attempt_at < again,
                    deliveries.c.lease_until <= now,
                )
                .values(next_attempt_at=again, reason=reason)
            )

    def _try_again(self, connection: Connection, delivery: Delivery, *, at: float, reason: str) -> None:
        connection.execute(
            update(deliveries)
            .where(_held(delivery))
            .values(
                state=DeliveryState.PENDING,
                attempts=delivery.attempts + 1,
                next_attempt_at=at,
                lease_until=0.0,
                updated_at=self.clock(),
                reason=reason,
            )
        )

    def _settle(
        self,
        delivery: Delivery,
        *,
        state: DeliveryState,
        reason: str,
        where: ColumnElement[bool] | None = None,
        **more: float | str,
    ) -> None:
        """Note an answer. That the peer has the object is true whoever holds the lease by now; a refusal may not be."""
        with self.writing_once() as connection:
            connection.execute(
                update(deliveries)
                .where(_unchanged(delivery) if where is None else where)
                .values(
                    state=state,
                    attempts=delivery.attempts + 1,
                    lease_until=0.0,
                    updated_at=self.clock(),
                    reason=reason,
                    **more,
                )
            )

    def _due(self, state: DeliveryState) -> ColumnElement[bool]:
        now = self.clock()
        return (deliveries.c.state == state) & (deliveries.c.next_attempt_at <= now) & (deliveries.c.lease_until <= now)


def _pause(delivery: Delivery, first_s: float, longest_s: float) -> float:
    longest: float = min(longest_s, first_s * 2 ** min(delivery.attempts, 30))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 -- no secret


def _unchanged(delivery: Delivery) -> ColumnElement[bool]:
    return (
        (deliveries.c.sop_instance_uid == delivery.object.sop_instance_uid)
        & (deliveries.c.destination == delivery.destination)
        & (deliveries.c.state == delivery.state)
    )


def _held(delivery: Delivery) -> ColumnElement[bool]:
    """Nobody else has claimed it since."""
    return _unchanged(delivery) & (deliveries.c.lease_token == delivery.lease_token)


def _delivery(row: Row[tuple[object, ...]]) -> Delivery:
    return Delivery(
        object=object_from(row),
        destination=row.destination,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_attempt_at=moment(row.next_attempt_at),
        reason=row.reason,
        lease_token=row.lease_token,
        sent_at=moment(row.updated_at) if row.state == DeliveryState.SENT else None,
    )
