"""The trace of a study goes on until its PACS has confirmed what it was sent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from collector import collector
from faults.archives import FaultyArchive
from faults.commitments import CommittingArchive

from service.sections import Tracing
from service.tracing import trace_id
from tests.sending import Desk, finished_job, listening, settings_for
from workers.sandbox import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from collector import Collector

    from service.settings import Settings

STUDY = "1.2.3"
"""Of `finished_job`."""


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as running:
        yield running


def traced(
    collected: Collector, folder: Path, archive: FaultyArchive, *, our_port: int = 11112, **peer: str
) -> Settings:
    settings = settings_for(folder, our_port=our_port, host="127.0.0.1", port=archive.port, **peer)
    finished_job(settings, folder)
    return settings.model_copy(update={"tracing": Tracing(endpoint=collected.endpoint)})


def deliver_until(settings: Settings, state: str) -> None:
    """Deliver and confirm with the sender's own traces, and hand them on."""
    desk = Desk(settings)
    desk.confirmer = desk.sender._confirmer
    desk.until(state)
    desk.sender._traces.close()


def steps(collected: Collector) -> list[tuple[str, str, str]]:
    """Process, step and error of every span, in order of time; all are of the study and hold what `deliver` holds."""
    spans = sorted(collected.spans(), key=lambda entry: entry[1].start_time_unix_nano)
    for _, span in spans:
        assert int.from_bytes(span.trace_id, "big") == trace_id(STUDY)
        assert {entry.key.removeprefix("pellucid.") for entry in span.attributes} == {
            "job",
            "kind",
            "destination",
            "attempt",
        }
        assert span.end_time_unix_nano >= span.start_time_unix_nano
    return [(process.removeprefix("pellucid-"), span.name, span.status.message) for process, span in spans]


def test_a_commitment_is_traced_from_the_request_to_the_report_that_comes_to_our_listener(
    collected: Collector, tmp_path: Path
) -> None:
    archive = CommittingArchive()
    archive.our_port = free_port()
    settings = traced(collected, tmp_path, archive, our_port=archive.our_port, confirm="commitment")
    try:
        with listening(settings):
            deliver_until(settings, "delivered")
    finally:
        archive.stop()
    found = steps(collected)
    assert found[0] == ("sender", "deliver", "")
    assert ("sender", "commitment-request", "") in found
    assert found.count(("listener", "commitment-report", "")) == 1
    assert not any(error for _, _, error in found)


def test_a_peer_that_does_not_commit_is_an_error_in_the_trace(collected: Collector, tmp_path: Path) -> None:
    archive = FaultyArchive()
    settings = traced(collected, tmp_path, archive, confirm="commitment")
    try:
        deliver_until(settings, "delivered")
    finally:
        archive.stop()
    assert steps(collected) == [("sender", "deliver", ""), ("sender", "commitment-request", "NotAcceptedError")]


@pytest.mark.parametrize(
    ("behaviour", "confirm", "last"),
    [
        ("keep", "query", [("query", "")]),
        ("keep", "retrieve", [("query", ""), ("read-back", "")]),
        ("other-bytes", "retrieve", [("query", ""), ("read-back", "differs")]),
    ],
)
def test_a_query_and_a_read_back_are_steps_of_the_trace(
    collected: Collector, tmp_path: Path, behaviour: str, confirm: str, last: list[tuple[str, str]]
) -> None:
    archive = FaultyArchive()
    archive.behaviour = behaviour
    settings = traced(collected, tmp_path, archive, confirm=confirm, retrieve="get")
    try:
        deliver_until(settings, "rejected" if behaviour == "other-bytes" else "delivered")
    finally:
        archive.stop()
    assert steps(collected) == [("sender", name, error) for name, error in [("deliver", ""), *last]]


def test_what_the_peer_does_not_find_is_an_error_of_its_query(collected: Collector, tmp_path: Path) -> None:
    archive = FaultyArchive()
    archive.behaviour = "forget"
    settings = traced(collected, tmp_path, archive, confirm="query")
    desk = Desk(settings)
    try:
        assert desk.deliver() == 1
        desk.sender._confirmer.confirm("@PACS", threading.Event())
    finally:
        archive.stop()
    desk.sender._traces.close()
    assert steps(collected) == [("sender", "deliver", ""), ("sender", "query", "not found")]
    for body in collected.bodies:
        assert b"1.2.9.0" not in body
