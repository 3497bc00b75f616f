"""Traces by OpenTelemetry, sent with OTLP over HTTP. Imported only where a collector is set: extra `tracing`."""

from __future__ import annotations

import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Status, StatusCode

from service.tracing import Traces, trace_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

    from service.sections import Tracing

_FAREWELL_S = 3.0
_NS = 1_000_000_000


class ExportedTraces(Traces):
    """Hands spans to a processor."""

    def __init__(self, process: str, processor: SpanProcessor, *, share: float) -> None:
        """Take the process's name, what gets the spans, and the share of studies that are traced.

        The share is drawn by the trace's identifier, so all processes trace the same studies.
        """
        self._ids = _OfStudy()
        self._provider = TracerProvider(
            sampler=TraceIdRatioBased(share),
            id_generator=self._ids,
            resource=Resource.create({"service.name": f"pellucid-{process}", "service.version": version("pellucid")}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("pellucid")

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
        """Note a step as a span without parent in the study's trace."""
        self._ids.local.trace = trace_id(study_instance_uid)
        span = self._tracer.start_span(
            name,
            context=Context(),
            start_time=round(begun_at * _NS),
            attributes={f"pellucid.{key}": value for key, value in attributes.items()},
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(round((time.time() if ended_at is None else ended_at) * _NS))

    def close(self) -> None:
        """Send what is still here; a collector that is away is not waited for."""
        farewell = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        farewell.start()
        farewell.join(timeout=_FAREWELL_S)


class _OfStudy(RandomIdGenerator):
    """Gives a trace the identifier that this thread has set."""

    def __init__(self) -> None:
        self.local = threading.local()

    def generate_trace_id(self) -> int:
        """Return the identifier of the study's trace."""
        chosen: int = self.local.trace
        return chosen


def to_collector(settings: Tracing, process: str) -> ExportedTraces:
    """Send spans from a thread in the background; when the collector is away, they are dropped."""
    exporter = OTLPSpanExporter(endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces")
    return ExportedTraces(process, BatchSpanProcessor(exporter), share=settings.share)
