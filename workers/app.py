"""The Celery process: it serves the broker, hands each job to the process that analyses, and never imports torch."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING

from celery.platforms import EX_FAILURE, SecurityWarning
from celery.worker import state

from service.audit.trail import open_trail
from service.pipelines import load_pipelines
from service.queue import PROCESS, QUEUES, make_app
from workers.analysing import analyse_jobs, import_ahead
from workers.registry import check_names
from workers.relay import NobodyLeftError, Relay
from workers.watch import end_worker, watch
from workers.zygote import Zygote

if TYPE_CHECKING:
    from celery import Celery

    from service.settings import Settings


def run_worker(settings: Settings) -> None:
    """Serve jobs until SIGTERM: the task in hand is finished first.

    Raises:
        SettingsError: a pipeline or model does not exist.
        PipelineError: an explainer or output does not exist; the message lists those that do.
        NobodyLeftError: the process that analyses does not start.
    """
    # Celery fears for root because of pickle, which we refuse.
    warnings.simplefilter("ignore", SecurityWarning)
    pipelines = load_pipelines(settings)
    for entry in pipelines:
        check_names("pellucid.explainers", entry.pipeline.explainers, "explainer")
        check_names("pellucid.outputs", entry.pipeline.outputs, "output")
    # Before there is any thread or connection here.
    zygote = Zygote(partial(import_ahead, settings), partial(analyse_jobs, settings))
    relay = Relay(zygote.fork, standby=settings.worker.standby)
    app = make_app(settings)

    def process(job_id: str) -> None:
        """Run one job."""
        try:
            relay.run(job_id)
        except NobodyLeftError as error:
            end_worker(str(error))

    app.task(process, name=PROCESS)
    try:
        with open_trail(settings, "worker").application():
            watch(app, relay, zygote)
            _serve(app)
    finally:
        relay.close()


def _serve(app: Celery) -> None:
    worker = app.Worker(
        # It works in this process's own thread: nothing is in between that could lose a call or its place.
        pool="solo",
        queues=list(QUEUES),
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    sys.exit(EX_FAILURE if state.should_terminate == EX_FAILURE else worker.exitcode)
