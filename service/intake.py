"""Turns arrivals into jobs: at once for pipelines that need one image, else when the study is complete."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from service.ledger.creation import NewJob
from service.pipelines import RunnablePipeline, chosen_by, job_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from service.ledger.arrivals import Arrivals
    from service.ledger.work import Work
    from service.records import Instance

log = logging.getLogger(__name__)

PATIENCE_S = 20.0


class Intake:
    """One pass at a time over what is new in the ledger; run it in a loop."""

    def __init__(
        self,
        *,
        arrivals: Arrivals,
        work: Work,
        pipelines: Sequence[RunnablePipeline],
        wake: Callable[[str, str], None],
        quiet_period_s: float,
        clock_was_set: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take the books, what runs, and how to call a worker.

        Args:
            arrivals: what came.
            work: jobs.
            pipelines: those that are enabled.
            wake: calls a worker for (job id, priority).
            quiet_period_s: after so long without an arrival a study may be complete.
            clock_was_set: tells, and sees to it, that nothing in the ledger is as old as it seems.
        """
        self._clock_was_set = clock_was_set
        self._arrivals = arrivals
        self._work = work
        self._pipelines = pipelines
        self._wake = wake
        self._quiet_period_s = quiet_period_s

    def run_once(self) -> int:
        """Create every job that is due and wake workers; return how many were created."""
        created = self._image_jobs() + self._study_jobs()
        for job in created:
            log.info("job %s created for pipeline %s", job.id, job.pipeline)
        self._wake_workers([(job.id, job.priority) for job in created])
        return len(created)

    def sweep(self) -> int:
        """Wake workers again for unfinished jobs that nobody holds; return how many."""
        forgotten = self._work.forgotten(patience_s=PATIENCE_S)
        self._wake_workers(forgotten)
        return len(forgotten)

    def _wake_workers(self, calls: Sequence[tuple[str, str]]) -> None:
        """Call for (job id, priority) each, and note it of all together: each note is a wait for the disk."""
        called: list[str] = []
        try:
            for name, priority in calls:
                self._wake(name, priority)
                called.append(name)
        except Exception as error:  # noqa: BLE001 -- whatever the broker's client raises, the sweep calls again
            log.warning(
                "job %s and %d more: the broker is out of reach (%s); they will be called again",
                calls[len(called)][0],
                len(calls) - len(called) - 1,
                type(error).__name__,
            )
        if called:
            self._work.wake(*called)

    def _image_jobs(self) -> list[NewJob]:
        fresh = self._arrivals.unassigned()
        if not fresh:
            return []
        wanted = [
            new_job(entry, [instance])
            for instance in fresh
            for entry in chosen_by(instance.called_ae, self._pipelines)
            if entry.pipeline.input == "image" and entry.pipeline.selects(instance.modality)
        ]
        return self._work.assign(wanted, fresh)

    def _study_jobs(self) -> list[NewJob]:
        created: list[NewJob] = []
        if self._clock_was_set():
            log.warning("the clock was set: every study that is not complete waits for its quiet period anew")
            return created
        for study, called_ae, last_arrival in self._arrivals.complete_studies(quiet_period_s=self._quiet_period_s):
            instances = self._arrivals.instances_of_study(study, called_ae)
            wanted = study_jobs(instances, chosen_by(called_ae, self._pipelines))
            created += self._work.complete_study(study, called_ae, last_arrival, wanted)
        return created


def study_jobs(instances: Sequence[Instance], pipelines: Iterable[RunnablePipeline]) -> list[NewJob]:
    """Decide the jobs of a complete study, of those of its instances that are still here.

    A study of which no pipeline reads a single image, nor has read one, gets one job all the same: it will be
    refused, with the reason, so that nothing that was sent stays without an answer.
    """
    entries = list(pipelines)
    kept = [instance for instance in instances if instance.key]
    jobs = []
    any_selected = False
    for entry in entries:
        selected = [instance for instance in instances if entry.pipeline.selects(instance.modality)]
        any_selected = any_selected or bool(selected)
        here = [instance for instance in selected if instance.key]
        if here and entry.pipeline.input == "study":
            jobs.append(new_job(entry, here))
    if not any_selected and entries and kept:
        jobs.append(new_job(entries[0], kept))
    return jobs


def new_job(entry: RunnablePipeline, instances: Sequence[Instance]) -> NewJob:
    """Return the job of a pipeline over instances of one study, with the identity that follows from both."""
    uids = tuple(sorted(instance.sop_instance_uid for instance in instances))
    first = instances[0]
    return NewJob(
        id=job_id(entry, first.study_instance_uid, uids),
        study_instance_uid=first.study_instance_uid,
        pipeline=entry.pipeline.name,
        pipeline_version=entry.pipeline.version,
        model_sha256=entry.model_sha256,
        calling_ae=first.calling_ae,
        called_ae=first.called_ae,
        priority=entry.pipeline.priority,
        sop_instance_uids=uids,
    )
