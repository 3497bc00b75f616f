"""A state folder with studies in it, and a clock that the test moves: for tests of what is deleted when."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from service.audit.chain import AuditLog
from service.audit.trail import Trail
from service.ledger.creation import NewJob
from service.ledger.transactions import moment
from service.outbox import open_outbox
from service.records import OutboxObject
from service.retention import DAY_S, Keeper
from service.settings import load_settings
from service.spool import open_spool

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Books

    from service.ledger.work import Claim


class House:
    """A state folder with one study in it, and a clock that the test moves."""

    def __init__(self, folder: Path, books: Books, **settings: str) -> None:
        variables = {
            "PELLUCID__STATE__DIRECTORY": str(folder),
            "PELLUCID__RETENTION__INSTANCES_DAYS": "10",
            "PELLUCID__RETENTION__RESULTS_DAYS": "30",
            "PELLUCID__RETENTION__AUDIT_DAYS": "100",
            **{f"PELLUCID__{name}": value for name, value in settings.items()},
        }
        self.settings = load_settings(None, variables)
        self.folder = folder
        self.books = books
        self.clock = self.books.clock
        self.clock.now = 1_770_000_000.0
        self.spool, self.outbox = open_spool(self.settings), open_outbox(self.settings)
        self.spool.prepare()
        self.log = AuditLog(folder / "audit", self.clock)
        self.trail = Trail(self.log, process="test", clock=self.clock)
        self.keeper = Keeper(
            self.settings,
            self.books.engine,
            spool=self.spool,
            outbox=self.outbox,
            audit_log=self.log,
            trail=self.trail,
            clock=self.clock,
        )

    def receive(self, sop: str = "1.2.3.4", *, content: bytes = b"pixels", study: str = "1.2.3") -> Path:
        incoming = self.spool.receive()
        incoming.write(content)
        key = self.spool.keep(incoming, study_instance_uid=study, sop_instance_uid=sop)
        self.books.arrive(
            sop, study=study, key=key, sha256=incoming.sha256, size=len(content), received_at=moment(self.clock.now)
        )
        self.books.arrivals.close_association("a")
        return self._old("spool", "instances", key)

    def make_job(self, sop: str = "1.2.3.4", *, study: str = "1.2.3") -> str:
        job = NewJob(
            id=sop.replace(".", "").ljust(32, "0"),
            study_instance_uid=study,
            pipeline="chest",
            pipeline_version="1",
            model_sha256="m" * 64,
            calling_ae="PACS",
            called_ae="PELLUCID",
            priority="routine",
            sop_instance_uids=(sop,),
        )
        self.books.work.assign([job], self.books.arrivals.unassigned())
        self.clock.now += 11
        ((_, _, last),) = self.books.arrivals.complete_studies(quiet_period_s=10)
        self.books.work.complete_study(study, "PELLUCID", last, [])
        return job.id

    def claim(self, job: str) -> Claim:
        claim = self.books.work.claim(job, lease_s=30, maximum_attempts=3)
        assert claim is not None
        return claim

    def finish(self, job: str) -> Path:
        key = self.outbox.keep(job, b"result")
        made = OutboxObject(
            sop_instance_uid=f"2.25.{job[:4]}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
            study_instance_uid="1.2.3",
            series_instance_uid="2.25.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            job_id=job,
            kind="secondary-capture",
            key=key,
            sha256="b" * 64,
            size=6,
        )
        self.books.work.finish(self.claim(job), [made], ["pacs"])
        return self._old("outbox", key)

    def _old(self, *parts: str) -> Path:
        """Return where a file lies, made as old as only files are that may go."""
        path = self.folder.joinpath(*parts)
        if path.exists():
            long_ago = time.time() - 3600
            os.utime(path, (long_ago, long_ago))
        return path

    def deliver(self) -> None:
        (delivery,) = self.books.deliveries.claim("pacs", lease_s=60)
        self.books.deliveries.delivered(delivery)

    def days_pass(self, days: float) -> None:
        self.clock.now += days * DAY_S
