"""A worker whose model sleeps, for `pellucid bench scale`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from service.ledger.database import open_database
from service.ledger.work import Work
from service.outbox import open_outbox
from service.queue import PROCESS, QUEUES, make_app
from service.settings import load_settings
from service.spool import open_spool
from workers.bench_books import DESTINATION, make_object

if TYPE_CHECKING:
    from service.settings import Settings


class SleepingRunner:
    """What a worker does with a job, with a model that sleeps."""

    def __init__(self, settings: Settings, sleep_s: float) -> None:
        self.engine = open_database(settings.database_url)
        self._work = Work(self.engine)
        self._spool, self._outbox = open_spool(settings), open_outbox(settings)
        self._lease_s = settings.worker.lease_s
        self._sleep_s = sleep_s

    def run(self, job_id: str) -> None:
        """Claim, read, sleep, write, finish."""
        claim = self._work.claim(job_id, lease_s=self._lease_s, maximum_attempts=3)
        if claim is None:
            return
        with self._spool.files(claim.inputs) as (path,):
            content = path.read_bytes()
        time.sleep(self._sleep_s)
        key = self._outbox.keep(job_id, content + job_id.encode())
        self._work.finish(claim, [make_object(claim.inputs[0].sop_instance_uid, job_id, key)], [DESTINATION])


def serve(variables: dict[str, str], sleep_s: float) -> None:
    """Be one Celery worker, until SIGTERM."""
    # Celery says goodbye on standard output, where the figures go.
    os.dup2(2, 1)
    settings = load_settings(None, variables)
    app = make_app(settings)
    runner = SleepingRunner(settings, sleep_s)
    app.task(runner.run, name=PROCESS)
    options: dict[str, Any] = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
    app.Worker(pool="solo", queues=list(QUEUES), loglevel="ERROR", quiet=True, **options).start()
