"""`pellucid audit`, as somebody runs it who was told to check, or was asked what happened with a study."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from service.audit.chain import AuditLog
from service.audit.trail import Trail
from service.cli import cli
from service.records import Delivery, DeliveryState, OutboxObject

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result
    from conftest import Books

JOBS = ("4f" * 16, "4f" + "0a" * 15)


def delivery(job: str, study: str) -> Delivery:
    made = OutboxObject(
        sop_instance_uid="2.25.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        study_instance_uid=study,
        series_instance_uid="2.25.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        job_id=job,
        kind="secondary-capture",
        key="k",
        sha256="b" * 64,
        size=1,
    )
    return Delivery(
        object=made,
        destination="pacs",
        state=DeliveryState.PENDING,
        attempts=2,
        next_attempt_at=datetime(2026, 1, 1, tzinfo=UTC),
        reason="",
    )


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    """Results of two studies were sent; that of the second one was rejected."""
    log = AuditLog(tmp_path / "audit")
    trail = Trail(log, process="test")
    for study, job in zip(("1.2.3", "1.2.30"), JOBS, strict=True):
        trail.sent(delivery(job, study), "10.0.0.1", accepted=job == JOBS[0], answer="0xA700 out of resources")
    return log


def audit(folder: Path, *arguments: str, **variables: str) -> Result:
    settings = {"PELLUCID__STATE__DIRECTORY": str(folder), **variables}
    return CliRunner(env=settings).invoke(cli, ["audit", *arguments])


def test_an_intact_log_is_called_so_with_its_last_hash(log: AuditLog, tmp_path: Path) -> None:
    last = [record for record, _ in log.records()][-1]
    done = audit(tmp_path, "verify")
    assert (done.exit_code, done.output) == (0, f"2 records, intact; last {last.hash}\n")
    found = json.loads(audit(tmp_path, "verify", "--json").output)
    assert (found["intact"], found["records"], found["last_hash"]) == (True, 2, last.hash)


def test_an_altered_log_ends_with_code_1_and_the_place(log: AuditLog, tmp_path: Path) -> None:
    (path,) = log.segments()
    path.write_bytes(path.read_bytes().replace(b'"rejected"', b'"sent"', 1))
    done = audit(tmp_path, "verify")
    assert done.exit_code == 1
    assert "000001.log line 2: record 2 was altered" in done.output
    assert "2 records, NOT intact" in done.output
    as_json = audit(tmp_path, "verify", "--json")
    assert (as_json.exit_code, json.loads(as_json.output)["intact"]) == (1, False)


def test_a_hash_from_the_collector_is_looked_for(log: AuditLog, tmp_path: Path) -> None:
    known = next(record for record, _ in log.records()).hash
    assert audit(tmp_path, "verify", "--known-hash", known).exit_code == 0
    done = audit(tmp_path, "verify", "--known-hash", "f" * 64)
    assert (done.exit_code, "no record has the hash that was given" in done.output) == (1, True)


def test_a_log_that_is_younger_than_the_ledger_ends_with_code_1(log: AuditLog, tmp_path: Path, books: Books) -> None:
    books.arrive("1.2.3.4", received_at=datetime(2026, 1, 1, tzinfo=UTC))
    done = audit(tmp_path, "verify")
    assert done.exit_code == 1
    assert "the ledger knows an instance of 2026-01-01" in done.output


def test_a_ledger_that_does_not_answer_keeps_nobody_from_checking(log: AuditLog, tmp_path: Path) -> None:
    url = "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"
    done = audit(tmp_path, "verify", PELLUCID__LEDGER__DATABASE_URL=url)
    assert done.exit_code == 0
    assert "not compared with the ledger, which does not answer" in done.output
    assert "2 records, intact" in done.output
    assert "secret" not in done.output


def numbers(folder: Path, asked: str) -> list[int]:
    done = audit(folder, "show", asked, "--json")
    return [record["number"] for record in json.loads(done.output)] if done.exit_code == 0 else []


def test_a_study_or_a_job_is_shown_alone(log: AuditLog, tmp_path: Path) -> None:
    assert numbers(tmp_path, "1.2.3") == numbers(tmp_path, JOBS[0]) == [1]
    assert numbers(tmp_path, "1.2.30") == numbers(tmp_path, JOBS[1][:8]) == [2]
    # Too short for a job's id: it would show what belongs to others.
    assert numbers(tmp_path, "4f") == []


def test_what_is_shown_says_who_took_it_and_what_was_answered(log: AuditLog, tmp_path: Path) -> None:
    done = audit(tmp_path, "show", JOBS[1])
    assert done.exit_code == 0
    lines = [line.strip() for line in done.output.splitlines()]
    assert lines[0].endswith(" 2 rejected")
    for expected in (
        "event: DICOM Instances Transferred",
        "outcome: 8",
        "participants: pellucid test, pacs 10.0.0.1",
        "SOP class 1.2.840.10008.5.1.4.1.1.7: 1 2.25.1",
        "attempt: 3",
        "answer: 0xA700 out of resources",
    ):
        assert expected in lines
