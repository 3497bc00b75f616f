"""What a worker process does with a job id: claim, analyse, put the objects into the outbox, answer."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch

from dicom_nodes.objects.series import SourceSeries
from service.destinations import destinations_of, kinds_for, outputs_to_build
from service.errors import DamagedFileError, NotEligibleError, PermanentError, RetryableError
from service.intake import new_job
from service.ledger.work import LeaseLostError
from service.metrics import reason_class
from service.records import JobState
from service.tracing import Traces
from workers.pipeline import Analyst, BuiltObject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.audit.trail import Trail
    from service.ledger.work import Claim, Work
    from service.metrics import WorkerMetrics
    from service.outbox import Outbox
    from service.pipelines import RunnablePipeline
    from service.records import Instance, Job
    from service.results import Result
    from service.settings import Settings
    from service.spool import Spool
    from workers.pipeline import Analysis

log = logging.getLogger(__name__)


class JobRunner:
    """Runs jobs of the enabled pipelines. Their models are loaded once, here."""

    def __init__(
        self,
        *,
        settings: Settings,
        pipelines: Sequence[RunnablePipeline],
        work: Work,
        spool: Spool,
        outbox: Outbox,
        trail: Trail,
        metrics: WorkerMetrics,
        traces: Traces | None = None,
    ) -> None:
        self._settings = settings.worker
        self._peers = settings.peers
        if settings.worker.threads:
            torch.set_num_threads(settings.worker.threads)
        self._work = work
        self._spool = spool
        self._outbox = outbox
        self._trail = trail
        self._metrics = metrics
        self._traces = traces or Traces()
        self._entries = {entry.pipeline.name: entry for entry in pipelines}
        self._analysts = {entry.pipeline.name: Analyst(entry.pipeline, settings) for entry in pipelines}

    def run(self, job_id: str) -> JobState | None:
        """Run a job once; None when there was nothing to do. It never raises for what a study holds."""
        claim = self._work.claim(
            job_id, lease_s=self._settings.lease_s, maximum_attempts=self._settings.maximum_attempts
        )
        if claim is None:
            return None
        begun_at = time.time()
        self._note_waiting(claim, begun_at)
        with _heartbeat(self._work, claim, self._settings.lease_s):
            try:
                state = self._attempt(claim)
            except LeaseLostError:
                log.warning("job %s: another worker holds it now; what this one made is dropped", job_id)
                return None
        self._metrics.jobs.labels(claim.job.pipeline, state).inc()
        self._traces.note(
            "job",
            claim.job.study_instance_uid,
            begun_at=begun_at,
            error="" if state in (JobState.DONE, JobState.REFUSED, JobState.SUPERSEDED) else str(state),
            job=job_id,
            pipeline=claim.job.pipeline,
            attempt=claim.job.attempts,
            state=state.value,
        )
        log.info("job %s: %s", job_id, state)
        return state

    def _attempt(self, claim: Claim) -> JobState:
        """Analyse, and turn every error into a state of the job; a lost lease leaves no job to have one."""
        most = self._settings.maximum_attempts
        try:
            return self._analyse(claim)
        except LeaseLostError:
            raise
        except PermanentError as error:
            self._work.finish(claim, [], [], state=JobState.FAILED, reason=str(error))
            return JobState.FAILED
        except RetryableError as error:
            # Not the study's fault: it waits for space, or for the store, however long that takes.
            return self._work.give_back(claim, reason=str(error), maximum_attempts=most, counts=False)
        except Exception as error:  # noqa: BLE001 -- the outer loop of a job: whatever it is, the job says so
            # The type alone: the text of an unforeseen error may hold a patient's data.
            words = str(error) if isinstance(error, DamagedFileError) else type(error).__name__
            reason = f"attempt {claim.job.attempts} failed: {words}"
            return self._work.give_back(claim, reason=reason, maximum_attempts=most)

    def _analyse(self, claim: Claim) -> JobState:
        analyst = self._analysts.get(claim.job.pipeline)
        if analyst is None:
            raise PermanentError(f"pipeline '{claim.job.pipeline}' is not enabled any more: see pipelines.enabled")
        outdated = self._outdated(claim.job, analyst)
        if outdated:
            return self._replace(claim, outdated)
        made: list[BuiltObject] = []
        refused: Counter[str] = Counter()
        remarks: dict[str, None] = {}
        analysed = 0
        units = [claim.inputs] if analyst.reads_series else [(instance,) for instance in claim.inputs]
        for unit in units:
            try:
                with self._stage("analysing", claim.job):
                    analysis = self._analyse_unit(analyst, claim, unit)
            except PermanentError as error:
                if not isinstance(error, NotEligibleError) and len(units) == 1:
                    raise
                refused[str(error)] += 1
                self._metrics.refusals.labels(claim.job.pipeline, reason_class(error)).inc()
            else:
                analysed += 1
                made += analysis.objects
                if isinstance(analysis.source, SourceSeries):
                    remarks |= dict.fromkeys(analysis.source.notes)
                remarks |= dict.fromkeys(f"not written: {text}" for text in analysis.not_written)
                self._count(claim.job.pipeline, analysis.result)
        reason = "; ".join(f"{text} ({count} images)" if count > 1 else text for text, count in refused.items())
        if analysed:
            notes = [f"not analysed: {reason}"] if reason else []
            self._put_out(claim, analyst, made, JobState.DONE, "; ".join([*notes, *remarks]))
            return JobState.DONE
        if analyst.pipeline.report_refused:
            made = self._refusal(analyst, claim, reason)
        self._put_out(claim, analyst, made, JobState.REFUSED, reason)
        return JobState.REFUSED

    def _note_waiting(self, claim: Claim, now: float) -> None:
        """Note how long the job waited for a worker, and before that the study for its job."""
        job, created_at = claim.job, claim.job.created_at.timestamp()
        self._metrics.stages.labels("waiting").observe(max(0.0, now - created_at))
        arrived_at = min((instance.received_at.timestamp() for instance in claim.inputs), default=created_at)
        study = job.study_instance_uid
        self._traces.note("collecting", study, begun_at=arrived_at, ended_at=created_at, job=job.id)
        self._traces.note("waiting", study, begun_at=created_at, ended_at=now, job=job.id)

    @contextmanager
    def _stage(self, name: str, job: Job) -> Iterator[None]:
        begun_at = time.time()
        try:
            with self._metrics.stages.labels(name).time():
                yield
        finally:
            self._traces.note(name, job.study_instance_uid, begun_at=begun_at, job=job.id)

    def _analyse_unit(self, analyst: Analyst, claim: Claim, unit: Sequence[Instance]) -> Analysis:
        destinations = destinations_of(analyst.pipeline, claim.job.calling_ae)
        with self._spool.files(unit) as paths:
            series = analyst.reads_series
            analyse = partial(analyst.analyse_series, paths) if series else partial(analyst.analyse, paths[0])
            return analyse(
                job_id=claim.job.id,
                created_at=self._settings.local(claim.job.created_at),
                supersedes=claim.replaced,
                outputs=outputs_to_build(destinations, analyst.pipeline, self._peers),
            )

    def _outdated(self, job: Job, analyst: Analyst) -> str:
        """Return what a job was made for when that is not what runs here, else nothing."""
        if job.model_sha256 != analyst.classifier.card.weights.sha256:
            return f"model {job.model_sha256[:12]}, and {analyst.classifier.card.weights.sha256[:12]} runs here"
        if job.pipeline_version != analyst.pipeline.version:
            return f"version {job.pipeline_version} of the pipeline, and {analyst.pipeline.version} runs here"
        return ""

    def _replace(self, claim: Claim, outdated: str) -> JobState:
        """End a job that another model was meant for, and make the one for the model that runs here.

        A job's identity, and with it the UIDs of its objects, says which model made them: that stays true.
        """
        entry = self._entries[claim.job.pipeline]
        job = new_job(entry, claim.inputs)
        self._work.replace(claim, job, reason=f"made for {outdated}; replaced by job {job.id}")
        return JobState.SUPERSEDED

    def _count(self, pipeline: str, result: Result) -> None:
        for finding in result.findings:
            verdict = "positive" if finding.positive else "negative"
            self._metrics.verdicts.labels(pipeline, finding.label, verdict).inc()
        self._metrics.stages.labels("explaining").observe(sum(entry.seconds for entry in result.attributions))

    def _refusal(self, analyst: Analyst, claim: Claim, reason: str) -> list[BuiltObject]:
        """Build the note for the PACS. Nobody waits for an analysis of others' results: they get none."""
        created_at = self._settings.local(claim.job.created_at)
        for instance in claim.inputs:
            with self._spool.files([instance]) as (path,):
                note = analyst.refuse(path, job_id=claim.job.id, created_at=created_at, reason=reason)
            if note is not None:
                return [note]
        return []

    def _put_out(
        self, claim: Claim, analyst: Analyst, made: Sequence[BuiltObject], state: JobState, reason: str
    ) -> None:
        with self._stage("writing", claim.job):
            kept = [
                entry.in_outbox(job_id=claim.job.id, key=self._outbox.keep(claim.job.id, entry.data)) for entry in made
            ]
        destinations = destinations_of(analyst.pipeline, claim.job.calling_ae)
        kinds = {name: kinds_for(name, analyst.pipeline, self._peers) for name in destinations}
        # Before the ledger: what is delivered is in the log, even when this process dies in between.
        inputs = {instance.sop_instance_uid: instance.sha256 for instance in claim.inputs}
        self._trail.result(claim.job, inputs, tuple(kept), state=state)
        self._work.finish(claim, kept, destinations, state=state, reason=reason, kinds=kinds)


@contextmanager
def _heartbeat(work: Work, claim: Claim, lease_s: float) -> Iterator[None]:
    """Renew the lease while the job runs; stop when it is lost."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(lease_s / 3):
            try:
                if not work.renew(claim, lease_s=lease_s):
                    return
            except Exception as error:  # noqa: BLE001 -- a busy database: the next beat tries again
                log.warning("job %s: cannot renew the lease (%s)", claim.job.id, type(error).__name__)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
