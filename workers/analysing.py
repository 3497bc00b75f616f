"""The process that analyses: database connections, models, torch. A study that ends it ends nothing else."""

from __future__ import annotations

import importlib
import logging
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from service.audit.trail import open_trail
from service.errors import PellucidError, SettingsError
from service.health import Health, serve_health
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.ledger.work import Work
from service.metrics import WorkerMetrics
from service.outbox import open_outbox
from service.pipelines import load_pipelines
from service.spool import open_spool
from service.storage import clear_copies
from service.tracing import open_traces
from workers.registry import IMAGE_OUTPUTS, SERIES_OUTPUTS, import_named
from workers.relay import DONE, END, READY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.settings import Settings
    from workers.zygote import Line

log = logging.getLogger(__name__)

ANNOUNCE_EVERY_S = 5.0
_LATE = ("torch._dynamo", "scipy.stats")
"""What torch and scipy import at the first gradient and the first statistic, for a second."""


def import_ahead(settings: Settings) -> None:
    """Import what the enabled pipelines need, and nothing else: this runs in the zygote."""
    importlib.import_module("workers.tasks")
    for entry in load_pipelines(settings):
        pipeline = entry.pipeline
        import_named("pellucid.explainers", pipeline.explainers)
        import_named("pellucid.assessors", pipeline.explanation.assessors)
        for group in (IMAGE_OUTPUTS, SERIES_OUTPUTS):
            import_named(group, pipeline.outputs)
        if pipeline.explanation.assessors:
            for name in _LATE:
                importlib.import_module(name)


def analyse_jobs(settings: Settings, line: Line) -> None:
    """Load everything, say so, and once it is this process's turn do jobs until the line ends."""
    try:
        analysing = _Analysing(settings)
        line.send_bytes(READY)
        line.recv_bytes()
        analysing.take_over()
        while (job_id := line.recv_bytes()) != END:
            with _deadline(settings.worker.task_time_limit_s):
                analysing.run(job_id.decode())
            line.send_bytes(DONE)
        analysing.close()
    except PellucidError as error:
        log.error("%s", error)  # noqa: TRY400 -- a message for people
    except (EOFError, ConnectionError):
        log.info("the worker has ended")


class _Analysing:
    """What lives in this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        engine = open_database(settings.database_url)
        self._registry = CollectorRegistry()
        metrics = WorkerMetrics(self._registry)
        self._reports = Reports(engine)
        spool, outbox = open_spool(settings), open_outbox(settings)
        self._health = Health({"ledger": self._reports.answers, "outbox": outbox.check})
        self._traces = open_traces(settings, "worker")
        # The module imports torch, which the process that serves the broker never does.
        tasks: Any = importlib.import_module("workers.tasks")
        self._runner = tasks.JobRunner(
            settings=settings,
            pipelines=load_pipelines(settings),
            work=Work(engine),
            spool=spool,
            outbox=outbox,
            trail=open_trail(settings, "worker", failed=metrics.audit_failures.inc),
            metrics=metrics,
            traces=self._traces,
        )
        self.run = self._runner.run

    def take_over(self) -> None:
        """Be the worker that others see."""
        clear_copies(self._settings)
        threading.Thread(target=self._announce, name="announce", daemon=True).start()
        log.info("ready")

    def close(self) -> None:
        """Hand on the traces that are still here."""
        self._traces.close()

    def _announce(self) -> None:
        pause, serves = threading.Event(), False
        while True:
            serves = serves or self._serve()
            self._health.beat()
            try:
                self._reports.announce("worker")
            except Exception as error:  # noqa: BLE001 -- a busy database must not end the worker
                log.warning("cannot announce the worker (%s)", type(error).__name__)
            pause.wait(ANNOUNCE_EVERY_S)

    def _serve(self) -> bool:
        http = self._settings.http
        try:
            serve_health(self._health, self._registry, host=http.host, port=http.worker_port)
        except SettingsError as error:
            # A probe will notice, and the work goes on. The one before may hold the port for a moment still.
            log.error("%s", error)  # noqa: TRY400
            return False
        return True


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM when the context lasts longer.

    The kernel does it, whatever native code hangs in, and whether the worker still lives or not.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
