"""Studies with marked names go through the whole service; then everything it wrote is searched for the marks."""

from __future__ import annotations

import base64
import json
import pickle
import stat
import subprocess
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING

import pytest
from collector import Collector, collector
from pydicom import dcmread
from require import require_tool

from service.audit.chain import AuditLog
from service.audit.verify import verify
from service.queue import PROCESS
from service.records import JobState
from service.tracing import trace_id
from workers.phantom.files import write_samples
from workers.sandbox import PACS_AE, ReceiverPacs, Sandbox, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKS = ("Geheimnis", "Verborgen", "MARK-4711", "MARK4711", "19010203", "Straßenmarke", "ACC-4711", "Dr-Marke")
PATIENT = {
    "PatientName": "Geheimnis^Verborgen",
    "PatientID": "MARK-4711",
    "PatientBirthDate": "19010203",
    "PatientAddress": "Straßenmarke 1",
    "AccessionNumber": "ACC-4711",
    "ReferringPhysicianName": "Dr-Marke^A",
    "OtherPatientNames": "Verborgen^Geheimnis",
}
ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be")


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (self._path, "w"))


class House:
    """A service that has seen a good film, a refused one, a broken one and a hostile message."""

    def __init__(
        self, folder: Path, pacs: ReceiverPacs, sandbox: Sandbox, ports: dict[str, int], traces: Collector
    ) -> None:
        self.folder = folder
        self.pacs = pacs
        self.sandbox = sandbox
        self.ports = ports
        self.traces = traces
        self.state = sandbox.settings.state.directory

    def get(self, process: str, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[process]}{path}", timeout=10) as answer:
            return answer.read().decode()


def marked(path: Path, **changes: str) -> Path:
    """Write the marks into a file's header."""
    dataset = dcmread(path)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in {**PATIENT, **changes}.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def send(files: list[Path], port: int, calling: str = PACS_AE, called: str = "PELLUCID") -> int:
    command = [require_tool("storescu"), "-aec", called, "-aet", calling, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode


def put_pickle_into_queue(house: House, marker: Path) -> None:
    """Write a message as kombu's filesystem transport does, but with a pickled body."""
    body = pickle.dumps(([Evil(str(marker))], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}))
    name = str(uuid.uuid4())
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "binary",
        "content-type": "application/x-python-serialize",
        "headers": {"lang": "py", "task": PROCESS, "id": name, "retries": 0, "root_id": name},
        "properties": {
            "correlation_id": name,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "routine"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": name,
        },
    }
    folder = house.state / "queue"
    (folder / f"1_{name}.routine.msg").write_text(json.dumps(message))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    require_tool("storescu")
    with collector() as traces:
        yield from marked_house(tmp_path_factory.mktemp("marked"), traces)


def marked_house(folder: Path, traces: Collector) -> Iterator[House]:
    pacs = ReceiverPacs(folder / "pacs")
    ports = {name: free_port() for name in ("listener", "worker", "sender")}
    sandbox = Sandbox(
        folder / "service",
        pacs_port=pacs.port,
        settings={
            "PELLUCID__LOG__FORMAT": "json",
            "PELLUCID__WORKER__THREADS": "1",
            "PELLUCID__TRACING__ENDPOINT": traces.endpoint,
            **{f"PELLUCID__HTTP__{name.upper()}_PORT": str(port) for name, port in ports.items()},
        },
    )
    house = House(folder, pacs, sandbox, ports, traces)
    films = write_samples(folder / "films", count=3, seed=31, size=(256, 256))
    good, refused, broken = (marked(path) for path in films)
    marked(refused, PatientSpeciesDescription="Canis Geheimnis")
    # a date that is none: pydicom warns of such with the value in the text
    refused.write_bytes(refused.read_bytes().replace(b"19010203", b"MARK4711"))
    # too few pixels, and those are a name
    dataset = dcmread(broken)
    dataset.PixelData = b"Geheimnis^" * 100
    dataset.save_as(broken)
    try:
        sandbox.start()
        sandbox.wait_ready(timeout_s=150)
        put_pickle_into_queue(house, folder / "unpickled")
        assert send([good, refused, broken], sandbox.port) == 0
        send([good], sandbox.port, called="GEHEIMNIS")
        sandbox.wait_settled(jobs=3, timeout_s=150)
        yield house
    finally:
        sandbox.stop()
        pacs.stop()


def needles() -> list[bytes]:
    spelled = {form for mark in MARKS for form in (mark, mark.upper())}
    raw = {form.encode(encoding) for form in spelled for encoding in ENCODINGS}
    return sorted(raw | {base64.b64encode(entry)[:8] for entry in raw if len(entry) > 8})


def found_in(content: bytes) -> list[bytes]:
    return [needle for needle in needles() if needle in content]


def test_the_search_finds_what_it_looks_for(house: House) -> None:
    spool = [path for path in (house.state / "spool").rglob("*.dcm")]  # noqa: C416
    outbox = [path for path in (house.state / "outbox").rglob("*.dcm")]  # noqa: C416
    assert spool
    assert outbox
    assert all(found_in(path.read_bytes()) for path in (*spool, *outbox))


def test_only_spool_and_outbox_hold_the_marks(house: House) -> None:
    searched = 0
    for path in (house.folder / "service").rglob("*"):
        relative = path.relative_to(house.folder / "service")
        if path.is_file() and relative.parts[:2] not in {("state", "spool"), ("state", "outbox")}:
            assert found_in(path.read_bytes()) == [], relative
            assert found_in(str(relative).encode()) == []
            searched += 1
    assert searched > 8


def test_log_ledger_audit_and_queue_are_among_what_was_searched(house: House) -> None:
    assert house.sandbox.log.count("\n") > 5
    assert (house.state / "ledger.sqlite").stat().st_size > 1000
    assert (house.state / "queue").is_dir()
    log = AuditLog(house.state / "audit")
    assert verify(log).intact
    kinds = {record.kind for record, _ in log.records()}
    assert {"application start", "receiving", "result", "sending", "sent", "alert"} <= kinds


def test_no_metric_holds_a_mark_and_the_figures_are_there(house: House) -> None:
    for process in house.ports:
        text = house.get(process, "/metrics")
        assert found_in(text.encode()) == []
        assert json.loads(house.get(process, "/health/ready"))["ok"] is True
    assert 'outcome="stored"} 3.0' in house.get("listener", "/metrics")
    assert "pellucid_verdicts_total" in house.get("worker", "/metrics")
    assert 'outcome="delivered"' in house.get("sender", "/metrics")


def test_a_trace_follows_a_study_from_association_to_delivery_and_holds_no_mark(house: House) -> None:
    (done,) = [report.job for report in house.sandbox.reports.jobs() if report.job.state is JobState.DONE]

    def steps() -> set[tuple[str, str]]:
        mine = trace_id(done.study_instance_uid)
        found = list(house.traces.spans())
        return {(service, span.name) for service, span in found if int.from_bytes(span.trace_id, "big") == mine}

    wanted = {("pellucid-listener", "receive"), ("pellucid-sender", "deliver")}
    wanted |= {("pellucid-worker", name) for name in ("collecting", "waiting", "analysing", "writing", "job")}
    wait_until(lambda: steps() == wanted, timeout_s=60, what="steps are missing")
    about = {entry.value.string_value for _, span in house.traces.spans() for entry in span.attributes}
    assert done.id in about
    for body in house.traces.bodies:
        assert found_in(body) == []
        assert done.study_instance_uid.encode() not in body


def test_every_line_of_the_log_is_json_and_jobs_carry_their_id(house: House) -> None:
    lines = [json.loads(line) for line in house.sandbox.log.splitlines() if line.startswith("{")]
    others = {line for line in house.sandbox.log.splitlines() if line and not line.startswith("{")}
    # Celery prints this past the log.
    assert others <= {"worker: Warm shutdown (MainProcess)"}
    jobs = {report.job.id for report in house.sandbox.reports.jobs()}
    assert jobs <= {line.get("job") for line in lines}


def test_one_film_was_explained_and_the_others_say_why_not(house: House) -> None:
    states = sorted(report.job.state for report in house.sandbox.reports.jobs())
    assert states.count(JobState.DONE) == 1
    assert all(report.job.reason for report in house.sandbox.reports.jobs() if report.job.state is not JobState.DONE)


def test_a_pickled_message_is_refused_and_never_opened(house: House) -> None:
    wait_until(
        lambda: not list((house.state / "queue").glob("*.routine.msg")), timeout_s=60, what="the message is still there"
    )
    time.sleep(0.5)
    assert not (house.folder / "unpickled").exists()
    assert "untrusted content of type pickle" in house.sandbox.log
    assert "unpickled" not in house.sandbox.log
    assert house.sandbox.reports.jobs()
    assert {entry.name for entry in house.sandbox.reports.alive(within_s=30)} == {"listener", "worker", "sender"}


def test_every_file_is_for_its_owner_alone(house: House) -> None:
    for path in (house.state, *house.state.rglob("*")):
        if not path.is_socket():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
