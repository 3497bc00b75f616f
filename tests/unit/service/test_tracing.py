from __future__ import annotations

import hashlib
import logging
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from collector import collector
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service.otlp import ExportedTraces
from service.settings import Settings
from service.tracing import Traces, open_traces, trace_id

if TYPE_CHECKING:
    import pytest

STUDY = "1.2.840.4711.1"


def settings(endpoint: str) -> Settings:
    return Settings.model_validate({"tracing": {"endpoint": endpoint}})


def test_steps_of_a_study_in_different_processes_share_a_trace() -> None:
    kept = InMemorySpanExporter()
    for process in ("listener", "worker"):
        traces = ExportedTraces(process, SimpleSpanProcessor(kept), share=1.0)
        traces.note("step", STUDY, begun_at=10.0, ended_at=12.5, job="j1")
        traces.note("step", "1.2.3", begun_at=10.0, ended_at=12.5, error="failed")
    first, other, again, _ = kept.get_finished_spans()
    assert first.context.trace_id == again.context.trace_id == trace_id(STUDY)
    assert first.context.span_id != again.context.span_id
    assert other.context.trace_id != first.context.trace_id
    assert (first.start_time, first.end_time) == (10_000_000_000, 12_500_000_000)
    assert dict(first.attributes or {}) == {"pellucid.job": "j1"}
    assert first.status.status_code is StatusCode.UNSET
    assert (other.status.status_code, other.status.description) == (StatusCode.ERROR, "failed")


def test_a_trace_is_named_by_a_hash_and_no_span_holds_the_uid() -> None:
    kept = InMemorySpanExporter()
    ExportedTraces("worker", SimpleSpanProcessor(kept), share=1.0).note("job", STUDY, begun_at=1.0)
    (span,) = kept.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == hashlib.sha256(f"trace {STUDY}".encode()).hexdigest()[:32]
    assert STUDY not in span.to_json()


def test_every_process_draws_the_same_share_of_studies() -> None:
    drawn = []
    for process in ("listener", "sender"):
        kept = InMemorySpanExporter()
        traces = ExportedTraces(process, SimpleSpanProcessor(kept), share=0.3)
        for number in range(200):
            traces.note("step", f"1.2.{number}", begun_at=1.0)
        drawn.append({span.context.trace_id for span in kept.get_finished_spans()})
    assert drawn[0] == drawn[1]
    assert 20 < len(drawn[0]) < 110


def test_without_a_collector_nothing_is_noted_and_nothing_imported() -> None:
    code = (
        "import sys; from service.settings import Settings; from service.tracing import Traces, open_traces;"
        "traces = open_traces(Settings(), 'worker'); traces.note('job', '1.2.3', begun_at=1.0); traces.close();"
        "assert type(traces) is Traces; assert not [name for name in sys.modules if 'opentelemetry' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_the_extra_nothing_is_noted_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "service.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    with caplog.at_level(logging.WARNING):
        traces = open_traces(settings("http://127.0.0.1:4318"), "worker")
    assert type(traces) is Traces
    assert "pip install 'pellucid[tracing]'" in caplog.text


def test_a_collector_gets_the_spans_by_otlp() -> None:
    with collector() as running:
        traces = open_traces(settings(running.endpoint + "/"), "sender")
        traces.note("deliver", STUDY, begun_at=1.0, job="j1", attempt=2)
        traces.close()
        ((service, span),) = running.spans()
    assert (service, span.name) == ("pellucid-sender", "deliver")
    assert int.from_bytes(span.trace_id, "big") == trace_id(STUDY)
    assert {entry.key for entry in span.attributes} == {"pellucid.job", "pellucid.attempt"}


def test_a_collector_that_is_away_holds_nothing_up() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        traces = open_traces(settings(f"http://127.0.0.1:{taken.getsockname()[1]}"), "listener")
        begun = time.monotonic()
        for number in range(5000):
            traces.note("receive", f"1.2.{number}", begun_at=1.0)
        traces.close()
    assert time.monotonic() - begun < 20.0
