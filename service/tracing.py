"""Traces of studies, from association to delivery: one trace a study, off unless `[tracing]` names a collector.

Nothing is carried from process to process, least of all through the queue: a trace's identifier follows from the
study, which listener, worker and sender all know. Spans hold job ids, names of ours and counts; of a study's UID only
the hash, of a patient nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.settings import Settings

log = logging.getLogger(__name__)


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
