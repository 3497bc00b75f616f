"""What arrived, and which studies are complete."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, delete, exists, or_, select, update

from service.ledger.rows import Kept
from service.ledger.schema import (
    PURGED,
    announced,
    arrivals,
    instances,
    job_inputs,
    objects,
    open_associations,
    set_aside,
    studies,
)
from service.ledger.transactions import Ledger, insert_all_missing, insert_missing, moment, put
from service.records import Instance

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Row


_UIDS_AT_ONCE = 500
_ANNOUNCED_S = 7 * 86_400.0
"""So long an announcement is good for."""
# Built once: that takes longer than running it, and it runs for every instance.
_OBJECT = select(objects.c.job_id).where(objects.c.sop_instance_uid == bindparam("uid"))
_INPUTS = (
    select(instances, instances.c.called_ae.label("via"), instances.c.calling_ae.label("sent_by"))
    .join_from(job_inputs, instances)
    .where(job_inputs.c.job_id == bindparam("job"))
    .order_by(instances.c.sop_instance_uid)
)


class Outcome(StrEnum):
    """What became of an instance that arrived."""

    STORED = "stored"
    REPEATED = "repeated"
    """The same instance was here already: acknowledge, keep the first file."""
    SET_ASIDE = "set aside"
    """The same UID with other content: kept apart and flagged, never processed."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """An instance that is durable in the spool, and the association that carried it."""

    instance: Instance
    association: str
    association_expires_at: float
    """Until then the association counts as open, unless it is renewed or closed."""


class Arrivals(Ledger):
    """Records instances for the listener and tells the intake what is new."""

    def record(self, instance: Instance, *, association: str, association_expires_at: float) -> Outcome:
        """Record one durable instance; see `record_all`."""
        (outcome,) = self.record_all(
            [Arrival(instance=instance, association=association, association_expires_at=association_expires_at)]
        )
        return outcome

    def record_all(self, entries: Sequence[Arrival]) -> list[Outcome]:
        """Record durable instances in one transaction; only after it may the peers be told success.

        Returns:
            What became of each. The file of a repeated one has the key of the kept one: both are equal.
        """
        with self.writing() as connection:
            return [self._record(connection, entry) for entry in entries]

    def recorded_keys(self, keys: Collection[str]) -> set[str]:
        """Tell which spool keys a row refers to."""
        with self.reading() as connection:
            found = select(instances.c.key).where(instances.c.key.in_(keys))
            also = select(set_aside.c.key).where(set_aside.c.key.in_(keys))
            return set(connection.execute(found.union(also)).scalars())

    def recorded_uids(self, sop_instance_uids: Sequence[str]) -> set[str]:
        """Tell which instances are here."""
        found: set[str] = set()
        with self.reading() as connection:
            for start in range(0, len(sop_instance_uids), _UIDS_AT_ONCE):
                some = sop_instance_uids[start : start + _UIDS_AT_ONCE]
                here = select(instances.c.sop_instance_uid).where(instances.c.sop_instance_uid.in_(some))
                found.update(connection.execute(here).scalars())
        return found

    def kept(self, sop_instance_uid: str) -> Kept:
        """Look up what is kept of an instance, and what was set aside under its name."""
        with self.reading() as connection:
            first = select(instances.c.key).where(instances.c.sop_instance_uid == sop_instance_uid)
            others = select(set_aside.c.key, set_aside.c.received_at).where(
                set_aside.c.sop_instance_uid == sop_instance_uid
            )
            return Kept(
                first=connection.execute(first).scalar() or "",
                others={key: received_at for key, received_at in connection.execute(others)},  # noqa: C416
            )

    def _record(self, connection: Connection, entry: Arrival) -> Outcome:
        instance = entry.instance
        row = _instance_row(instance)
        row["ours"] = instance.ours or _made_here(connection, instance.sop_instance_uid)
        outcome = Outcome.STORED
        if not insert_missing(connection, instances, row):
            kept = connection.execute(
                select(instances.c.sha256).where(instances.c.sop_instance_uid == instance.sop_instance_uid)
            ).scalar_one()
            if kept != instance.sha256:
                _set_aside(connection, instance)
                return Outcome.SET_ASIDE
            outcome = Outcome.REPEATED
            _restore(connection, row)
        if not row["ours"] and _arrive(connection, instance):
            put(
                connection,
                studies,
                {
                    "study_instance_uid": instance.study_instance_uid,
                    "called_ae": instance.called_ae,
                    "last_arrival": self.clock(),
                    "complete": False,
                },
            )
            insert_missing(
                connection,
                open_associations,
                {
                    "association": entry.association,
                    "study_instance_uid": instance.study_instance_uid,
                    "expires_at": entry.association_expires_at,
                },
            )
        return outcome

    def keep_open(self, associations: Iterable[str], *, expires_at: float) -> None:
        """Renew the associations that are still open; a listener that dies stops doing so."""
        names = list(associations)
        if names:
            with self.writing_once() as connection:
                connection.execute(
                    update(open_associations)
                    .where(open_associations.c.association.in_(names))
                    .values(expires_at=expires_at)
                )

    def close_association(self, association: str) -> None:
        """An association ended, in whatever way."""
        with self.writing_once() as connection:
            connection.execute(delete(open_associations).where(open_associations.c.association == association))

    def unassigned(self, *, limit: int = 1000) -> list[Instance]:
        """New instances that the intake has not looked at, oldest first."""
        with self.reading() as connection:
            rows = connection.execute(
                select(instances, arrivals.c.called_ae.label("via"), arrivals.c.calling_ae.label("sent_by"))
                .join_from(arrivals, instances)
                .where(arrivals.c.assigned.is_(False))
                .order_by(instances.c.received_at)
                .limit(limit)
            )
            return [_instance(row) for row in rows]

    def complete_studies(self, *, quiet_period_s: float) -> list[tuple[str, str, float]]:
        """Studies with nothing new for the quiet period and no open association, and announced ones that are here.

        Returns:
            (Study Instance UID, called AE title, time of the last arrival) of each.
        """
        now = self.clock()
        still_open = exists().where(
            and_(
                open_associations.c.study_instance_uid == studies.c.study_instance_uid,
                open_associations.c.expires_at > now,
            )
        )
        quiet = and_(studies.c.last_arrival <= now - quiet_period_s, ~still_open)
        with self.reading() as connection:
            rows = connection.execute(
                select(studies.c.study_instance_uid, studies.c.called_ae, studies.c.last_arrival)
                .where(studies.c.complete.is_(False))
                .where(or_(quiet, _all_announced_are_here()))
            )
            return [(row.study_instance_uid, row.called_ae, row.last_arrival) for row in rows]

    def announce(self, study_instance_uid: str, sop_instance_uids: Collection[str]) -> None:
        """Note what a study consists of: as soon as all of it is here, the study is complete."""
        with self.writing() as connection:
            # What never came whole, or was announced when it was complete, is not kept for ever.
            connection.execute(delete(announced).where(announced.c.announced_at < self.clock() - _ANNOUNCED_S))
            rows = [{"study_instance_uid": study_instance_uid, "sop_instance_uid": uid} for uid in sop_instance_uids]
            insert_all_missing(connection, announced, [{**row, "announced_at": self.clock()} for row in rows])

    def instances_of_study(self, study_instance_uid: str, called_ae: str) -> list[Instance]:
        """Every instance of a study that arrived for one of our AE titles, by SOP Instance UID.

        Those that retention deleted are among them, without a key.
        """
        with self.reading() as connection:
            rows = connection.execute(
                select(instances, arrivals.c.called_ae.label("via"), arrivals.c.calling_ae.label("sent_by"))
                .join_from(arrivals, instances)
                .where(arrivals.c.study_instance_uid == study_instance_uid, arrivals.c.called_ae == called_ae)
                .order_by(instances.c.sop_instance_uid)
            )
            return [_instance(row) for row in rows]

    def set_aside(self) -> list[Row[tuple[str, str, str, str, str, float, str]]]:
        """Instances that were set aside and whose file is still there, newest first."""
        kept = select(set_aside).where(set_aside.c.key != PURGED).order_by(set_aside.c.received_at.desc())
        with self.reading() as connection:
            return list(connection.execute(kept))


def inputs_of(connection: Connection, job_id: str) -> list[Instance]:
    """Read the instances that a job is about, by SOP Instance UID."""
    return [_instance(row) for row in connection.execute(_INPUTS, {"job": job_id})]


def _all_announced_are_here() -> ColumnElement[bool]:
    """Of the study and title of the enclosing query; a study that nobody announced is not meant.

    Nor one of which more came than was announced: what a PACS said of a study yesterday does not tell when today's
    series is whole.
    """
    of_study = announced.c.study_instance_uid == studies.c.study_instance_uid
    here = and_(
        arrivals.c.study_instance_uid == studies.c.study_instance_uid, arrivals.c.called_ae == studies.c.called_ae
    )
    same = arrivals.c.sop_instance_uid == announced.c.sop_instance_uid
    missing = exists().where(of_study, ~exists().where(here, same).correlate(studies, announced))
    more = exists().where(here, ~exists().where(of_study, same).correlate(studies, arrivals))
    return and_(exists().where(of_study), ~missing, ~more)


def _instance_row(instance: Instance) -> dict[str, object]:
    row = {column.name: getattr(instance, column.name) for column in instances.columns}
    return {**row, "received_at": instance.received_at.timestamp()}


def _instance(row: Row[tuple[object, ...]]) -> Instance:
    values = {column.name: row._mapping[column.name] for column in instances.columns}  # noqa: SLF001
    mapping = row._mapping  # noqa: SLF001
    return Instance(
        **{
            **values,
            "received_at": moment(values["received_at"]),
            "called_ae": mapping["via"],
            "calling_ae": mapping["sent_by"],
        }
    )


def _restore(connection: Connection, row: dict[str, object]) -> None:
    """An instance that retention had deleted came again: its file is back, and is kept as long as a new one."""
    connection.execute(
        update(instances)
        .where(instances.c.sop_instance_uid == row["sop_instance_uid"], instances.c.key == PURGED)
        .values(key=row["key"], received_at=row["received_at"])
    )


def _made_here(connection: Connection, sop_instance_uid: str) -> bool:
    return connection.execute(_OBJECT, {"uid": sop_instance_uid}).first() is not None


def _arrive(connection: Connection, instance: Instance) -> bool:
    return bool(
        insert_missing(
            connection,
            arrivals,
            {
                "sop_instance_uid": instance.sop_instance_uid,
                "called_ae": instance.called_ae,
                "study_instance_uid": instance.study_instance_uid,
                "calling_ae": instance.calling_ae,
                "assigned": False,
            },
        )
    )


def _set_aside(connection: Connection, instance: Instance) -> None:
    put(
        connection,
        set_aside,
        {
            "sop_instance_uid": instance.sop_instance_uid,
            "sha256": instance.sha256,
            "key": instance.key,
            "calling_ae": instance.calling_ae,
            "address": instance.address,
            "received_at": instance.received_at.timestamp(),
            "reason": "an instance with this SOP Instance UID and other content is stored already",
        },
    )
