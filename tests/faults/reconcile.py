"""Compares what was promised with what is there: acknowledged instances, jobs, objects in the PACS."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from faults.content import dataset_sha256
from service.ledger import schema
from service.records import DeliveryState, JobState
from service.storage import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from faults.archives import Archive
    from faults.installation import Installation
    from faults.modality import Sent

_UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
_ON_THE_WAY = (DeliveryState.PENDING, DeliveryState.SENT)


@dataclass(kw_only=True)
class Balance:
    """What does not agree. Each entry names what it is about."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    """Failed, refused or rejected, with the reason: visible, so not lost."""

    @property
    def even(self) -> bool:
        """Nothing lost, nothing twice, nothing stuck."""
        return not (self.lost or self.duplicated or self.stuck)


class Auditor:
    """Reads one installation's ledger, spool and outbox, and its PACS."""

    def __init__(self, installation: Installation, archive: Archive) -> None:
        self._installation = installation
        self._archive = archive
        directory = installation.settings.state.directory
        self._spool, self._outbox = Folder(directory / "spool" / "instances"), Folder(directory / "outbox")

    def wait_settled(self, sent: Iterable[Sent], *, timeout_s: float) -> float:
        """Wait until nothing is under way any more, at most so long; return the seconds that it took."""
        uids = {entry.sop_instance_uid for entry in sent}
        begun = time.monotonic()
        while time.monotonic() - begun < timeout_s:
            try:
                if not self._under_way(uids):
                    break
            except SQLAlchemyError:
                pass  # the database may be what was broken
            time.sleep(0.25)
        return time.monotonic() - begun

    def balance(self, sent: Iterable[Sent]) -> Balance:
        """Reconcile everything that was acknowledged."""
        found = Balance()
        unique = sorted({(entry.sop_instance_uid, entry.sha256) for entry in sent})
        with self._installation.reports.reading() as connection:
            self._instances(connection, unique, found)
            self._jobs(connection, unique, found)
            self._objects(connection, found)
        return found

    def attempts(self) -> Counter[int]:
        """How many jobs took how many attempts."""
        with self._installation.reports.reading() as connection:
            return Counter(connection.execute(select(schema.jobs.c.attempts)).scalars())

    def _under_way(self, uids: set[str]) -> bool:
        with self._installation.reports.reading() as connection:
            known = set(connection.execute(select(schema.job_inputs.c.sop_instance_uid)).scalars())
            if not uids <= known | set(connection.execute(select(schema.set_aside.c.sop_instance_uid)).scalars()):
                return True
            jobs = select(schema.jobs.c.id).where(schema.jobs.c.state.in_(_UNFINISHED))
            deliveries = select(schema.deliveries.c.destination).where(schema.deliveries.c.state.in_(_ON_THE_WAY))
            return connection.execute(jobs).first() is not None or connection.execute(deliveries).first() is not None

    def _instances(self, connection: Connection, sent: list[tuple[str, str]], found: Balance) -> None:
        """Each content lies in the spool: processed, or set aside when its UID was known with another."""
        keys: dict[str, list[str]] = defaultdict(list)
        for source in (schema.instances, schema.set_aside):
            for row in connection.execute(select(source.c.sop_instance_uid, source.c.key)):
                keys[row.sop_instance_uid].append(row.key)
        for row in connection.execute(select(schema.set_aside.c.sop_instance_uid, schema.set_aside.c.reason)):
            (found.set_aside if row.reason else found.lost).append(f"instance {row.sop_instance_uid}: {row.reason}")
        for uid, sha256 in sent:
            paths = [self._spool.path(key) for key in keys[uid]]
            if not paths:
                found.lost.append(f"instance {uid}: acknowledged, not in the ledger")
            elif not all(path.is_file() for path in paths):
                found.lost.append(f"instance {uid}: acknowledged, its file is gone")
            elif sha256 not in {dataset_sha256(path.read_bytes()) for path in paths}:
                found.lost.append(f"instance {uid}: acknowledged, its file holds other bytes")

    def _jobs(self, connection: Connection, sent: list[tuple[str, str]], found: Balance) -> None:
        with_job = set(connection.execute(select(schema.job_inputs.c.sop_instance_uid)).scalars())
        known = set(connection.execute(select(schema.instances.c.sop_instance_uid)).scalars())
        found.stuck += [f"instance {uid}: no job" for uid, _ in sent if uid in known and uid not in with_job]
        for job in connection.execute(select(schema.jobs)):
            if job.state in _UNFINISHED:
                found.stuck.append(f"job {job.id}: {job.state}, {job.attempts} attempts")
            elif job.state in (JobState.FAILED, JobState.REFUSED):
                (found.set_aside if job.reason else found.lost).append(f"job {job.id}: {job.state}: {job.reason}")

    def _objects(self, connection: Connection, found: Balance) -> None:
        inventory = self._archive.inventory()
        rows = connection.execute(
            select(schema.objects, schema.deliveries.c.state, schema.deliveries.c.reason)
            .join_from(schema.deliveries, schema.objects)
            .order_by(schema.objects.c.sop_instance_uid)
        ).all()
        done = set(connection.execute(select(schema.jobs.c.id).where(schema.jobs.c.state == JobState.DONE)).scalars())
        without = done - {row.job_id for row in rows}
        found.lost += [f"job {job}: done, without objects" for job in without]
        for row in rows:
            self._object(row, inventory.pop(row.sop_instance_uid, []), found)
        unknown = inventory.keys() - self._made_meanwhile()
        found.duplicated += [f"object {uid}: in the PACS, not in the ledger" for uid in sorted(unknown)]
        expected = {row.key for row in rows}
        # What an unfinished job left is made again; whether with the same bytes shows when it is done.
        made = {entry.key for entry in self._outbox.entries("") if entry.key.split("/")[1] in done}
        found.duplicated += [f"file {key}: made again with other bytes" for key in sorted(made - expected)]

    def _made_meanwhile(self) -> set[str]:
        """Objects that the ledger knows by now: what is still under way may reach the PACS while we look."""
        with self._installation.reports.reading() as connection:
            return set(connection.execute(select(schema.objects.c.sop_instance_uid)).scalars())

    def _object(self, row: object, copies: list[str], found: Balance) -> None:
        name = f"object {row.sop_instance_uid} ({row.kind})"  # type: ignore[attr-defined]
        state, key = row.state, row.key  # type: ignore[attr-defined]
        if state == DeliveryState.REJECTED:
            found.set_aside.append(f"{name}: rejected: {row.reason}")  # type: ignore[attr-defined]
        elif state != DeliveryState.DELIVERED:
            found.stuck.append(f"{name}: {state}")
        elif not copies:
            found.lost.append(f"{name}: delivered, not in the PACS")
        elif len(copies) > 1:
            found.duplicated.append(f"{name}: {len(copies)} in the PACS")
        elif copies[0] != dataset_sha256(self._outbox.path(key).read_bytes()):
            found.lost.append(f"{name}: delivered, and the PACS holds other bytes")
