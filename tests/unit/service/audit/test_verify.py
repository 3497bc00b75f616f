"""What somebody with an editor, and with the program itself, can change in the log without being seen: nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from audit_logs import Clock

from service.audit.chain import AuditLog, Record, write_place
from service.audit.verify import PURGED, anchor, verify

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0
BEGAN = Clock.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> AuditLog:
    log = AuditLog(tmp_path / "audit", clock)
    for number in range(5):
        log.append(kind="sent", message=f"<m n='{number}'/>", study="1.2.3", job="j" * 32, note="a crash was noted")
    return log


def records(log: AuditLog) -> list[Record]:
    return [record for record, _ in log.records()]


def put(log: AuditLog, *written: Record) -> None:
    """Write the only segment anew, as somebody does who knows the form."""
    (path,) = log.segments()
    path.write_bytes(b"".join(record.line() for record in written))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at", "2026-01-01T00:00:00.000+00:00"),
        ("kind", "rejected"),
        ("study", "1.2.4"),
        ("job", "k" * 32),
        ("message", "<m n='9'/>"),
        ("note", ""),
    ],
)
def test_each_part_of_a_record_is_under_its_hash(log: AuditLog, field: str, value: str) -> None:
    *before, last = records(log)
    put(log, *before, Record(**{**vars(last), field: value}))
    assert verify(log).problems == ("000001.log line 5: record 5 was altered",)


def test_a_record_that_was_rewritten_together_with_its_hash_shows_by_the_next_one(log: AuditLog) -> None:
    first, second, third, *after = records(log)
    put(log, first, second, replace(third, message="<nothing happened/>").sealed(), *after)
    assert verify(log).problems == ("000001.log line 4: record 4 does not follow record 3",)


def test_a_last_record_that_was_rewritten_together_with_its_hash_shows_by_the_head(log: AuditLog) -> None:
    *before, last = records(log)
    put(log, *before, replace(last, message="<nothing happened/>").sealed())
    assert verify(log).problems == ("record 5, which the file head names, is missing or altered",)


def test_a_gap_in_the_numbers_shows_though_the_hashes_follow(log: AuditLog) -> None:
    *before, last = records(log)
    put(log, *before, replace(last, number=7).sealed())
    assert "000001.log line 5: record 7 does not follow record 4" in verify(log).problems


def test_a_lost_head_shows(log: AuditLog) -> None:
    (log.folder / "head").unlink()
    assert verify(log).problems == ("the file head is missing or damaged",)


def test_a_log_of_one_record_in_place_of_the_forwarded_one_shows(log: AuditLog, tmp_path: Path) -> None:
    other = AuditLog(tmp_path / "other", Clock())
    other.append(kind="sent", message="<nothing happened/>")
    _, behind = next(log.records())
    write_place(other.folder / "forwarded", behind)
    assert verify(other).problems == ("record 1, which syslog has, is missing or altered",)


@pytest.fixture
def shortened(log: AuditLog, clock: Clock) -> tuple[AuditLog, Record]:
    """A log without its first day, and the last record of that day."""
    gone = records(log)[-1]
    clock.now += DAY
    log.append(kind="sent", message="<m/>")
    log.segments()[0].unlink()
    return log, gone


def test_a_purge_speaks_for_the_records_alone_that_it_names(shortened: tuple[AuditLog, Record]) -> None:
    log, gone = shortened
    log.append(kind=PURGED, message="<p/>", note=anchor(gone.number, "f" * 64))
    assert verify(log).problems == ("records before 6 are missing, and no purge removed them",)
    log.append(kind=PURGED, message="<p/>", note=anchor(gone.number, gone.hash))
    assert verify(log).intact


def test_only_a_purge_speaks_for_missing_records(shortened: tuple[AuditLog, Record]) -> None:
    log, gone = shortened
    log.append(kind="alert", message="<a/>", note=anchor(gone.number, gone.hash))
    assert verify(log).problems == ("records before 6 are missing, and no purge removed them",)


def test_a_purged_log_may_begin_behind_what_the_ledger_knows(shortened: tuple[AuditLog, Record]) -> None:
    log, gone = shortened
    log.append(kind=PURGED, message="<p/>", note=anchor(gone.number, gone.hash))
    assert verify(log, first_arrival=datetime.fromtimestamp(BEGAN, UTC)).intact


@pytest.mark.parametrize(("seconds", "intact"), [(50, True), (70, False)])
def test_clocks_of_two_machines_may_differ_by_a_minute(log: AuditLog, seconds: int, intact: bool) -> None:
    arrival = datetime.fromtimestamp(BEGAN, UTC) - timedelta(seconds=seconds)
    assert verify(log, first_arrival=arrival).intact is intact
