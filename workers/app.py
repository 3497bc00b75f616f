"""The Celery process: prefork with one child, which loads the models; the parent never imports torch."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from celery.platforms import EX_FAILURE, SecurityWarning
from celery.signals import worker_process_init, worker_process_shutdown
from celery.worker import state
from prometheus_client import CollectorRegistry

from service.audit.trail import open_trail
from service.errors import SettingsError
from service.health import Health, serve_health
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.ledger.work import Work
from service.metrics import WorkerMetrics
from service.observe import configure_logging
from service.outbox import open_outbox
from service.pipelines import load_pipelines
from service.queue import PROCESS, QUEUES, make_app
from service.spool import open_spool
from service.storage import clear_copies
from service.tracing import Traces, open_traces
from workers.registry import check_names
from workers.watch import watch

if TYPE_CHECKING:
    from celery import Celery

    from service.settings import Settings

log = logging.getLogger(__name__)

ANNOUNCE_EVERY_S = 5.0


def run_worker(settings: Settings) -> None:
    """Serve jobs until SIGTERM: the task in hand is finished first.

    Raises:
        SettingsError: a pipeline or model does not exist.
        PipelineError: an explainer or output does not exist; the message lists those that do.
    """
    # Celery fears for root because of pickle, which we refuse.
    warnings.simplefilter("ignore", SecurityWarning)
    pipelines = load_pipelines(settings)
    for entry in pipelines:
        check_names("pellucid.explainers", entry.pipeline.explainers, "explainer")
        check_names("pellucid.outputs", entry.pipeline.outputs, "output")
    app = make_app(settings)
    child = _Child(settings)
    app.task(child.process, name=PROCESS)
    worker_process_init.connect(child.start, weak=False)
    worker_process_shutdown.connect(child.stop, weak=False)
    with open_trail(settings, "worker").application():
        watch(app, child.ready.is_set)
        _serve(app)


def _serve(app: Celery) -> None:
    worker = app.Worker(
        pool="prefork",
        concurrency=1,
        queues=list(QUEUES),
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    sys.exit(EX_FAILURE if state.should_terminate == EX_FAILURE else worker.exitcode)


class _Child:
    """What lives in the forked process only: database connections, models, torch."""

    def __init__(self, settings: Settings) -> None:
        self.ready = multiprocessing.Event()
        """Set in the child, seen in the parent: both have it since before the fork."""
        self._settings = settings
        self._runner: Any = None
        self._traces = Traces()

    def start(self, **_signal: Any) -> None:
        """Load everything once, then say that the worker is ready."""
        settings = self._settings
        configure_logging("worker", form=settings.log.format)
        engine = open_database(settings.database_url)
        # The module imports torch, which must not happen before the fork.
        tasks = importlib.import_module("workers.tasks")
        registry = CollectorRegistry()
        metrics = WorkerMetrics(registry)
        reports = Reports(engine)
        spool, outbox = open_spool(settings), open_outbox(settings)
        clear_copies(settings)
        health = Health({"ledger": reports.answers, "outbox": outbox.check})
        self._traces = open_traces(settings, "worker")
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
        threading.Thread(target=_announce, args=(reports, health), name="announce", daemon=True).start()
        try:
            serve_health(health, registry, host=settings.http.host, port=settings.http.worker_port)
        except SettingsError as error:
            # Celery swallows what is raised here; a probe will notice, and the work goes on.
            log.error("%s", error)  # noqa: TRY400
        self.ready.set()
        log.info("ready")

    def stop(self, **_signal: Any) -> None:
        """Hand on the traces that are still here."""
        self._traces.close()

    def process(self, job_id: str) -> None:
        """Run one job."""
        self._runner.run(job_id)


def _announce(reports: Reports, health: Health) -> None:
    pause = threading.Event()
    while True:
        health.beat()
        try:
            reports.announce("worker")
        except Exception as error:  # noqa: BLE001 -- a busy database must not end the worker
            log.warning("cannot announce the worker (%s)", type(error).__name__)
        pause.wait(ANNOUNCE_EVERY_S)
