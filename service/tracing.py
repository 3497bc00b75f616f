"""Traces of studies, from association to confirmed delivery: one trace a study, off unless `[tracing]` says where to.

Nothing is carried from process to process, least of all through the queue: a trace's identifier follows from the
study, which listener, worker and sender all know. Spans hold job ids, names of ours and counts; of a study's UID only
the hash, of a patient nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.records import Delivery
    from service.settings import Settings

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Step:
    """What is under way; it is noted when it ends."""

    error: str = ""
    """Set it where the step failed and raised nothing: a class of errors."""


class Traces:
    """Notes nothing; `service.otlp.ExportedTraces` does."""

    def note(
        self,
        name: str,
        study_instance_uid: str,
        *,
        begun_at: float,
        ended_at: float | None = None,
        error: str = "",
        **attributes: str | int,
    ) -> None:
        """Note that something was done for a study.

        Args:
            name: of the step.
            study_instance_uid: names the trace; it is hashed.
            begun_at: seconds since 1970.
            ended_at: likewise; now by default.
            error: a class of errors when it failed, never a text that others wrote.
            attributes: ids and names of ours, counts.
        """

    def note_delivery(self, name: str, delivery: Delivery, *, attempt: int, begun_at: float, error: str = "") -> None:
        """Note a step of one object's delivery; `attempt` counts its sendings from 1, the others are as for `note`."""
        self.note(
            name,
            delivery.object.study_instance_uid,
            begun_at=begun_at,
            error=error,
            job=delivery.object.job_id,
            kind=delivery.object.kind,
            destination=delivery.destination,
            attempt=attempt,
        )

    @contextmanager
    def confirming(self, name: str, batch: Sequence[Delivery]) -> Iterator[Step]:
        """Note a step of confirming what was sent, once for each object; what it raises is noted by its class."""
        step, begun_at = Step(), time.time()
        try:
            yield step
        except Exception as error:
            step.error = type(error).__name__
            raise
        finally:
            for delivery in batch:
                # The sending that is confirmed has been counted already.
                self.note_delivery(name, delivery, attempt=delivery.attempts, begun_at=begun_at, error=step.error)

    def close(self) -> None:
        """Hand on what is still here, within seconds."""


def trace_id(study_instance_uid: str) -> int:
    """Return the 128 bits that name the trace of a study."""
    return int(hashlib.sha256(b"trace " + study_instance_uid.encode()).hexdigest()[:32], 16)


def open_traces(settings: Settings, process: str) -> Traces:
    """Return what a process notes its steps with; without a collector, or without the extra `tracing`, nothing."""
    if not settings.tracing.endpoint:
        return Traces()
    try:
        otlp = importlib.import_module("service.otlp")
    except ModuleNotFoundError:
        log.warning("[tracing] endpoint is set, but nothing is traced: pip install 'pellucid[tracing]'")
        return Traces()
    opened: Traces = otlp.to_collector(settings.tracing, process)
    return opened
