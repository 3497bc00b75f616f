"""What a crash or a full disk leaves of the log is dropped and noted, and is no damage."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest
from audit_logs import Clock, log_of_five, only_segment

from service.audit.chain import AuditLog, Entry
from service.audit.verify import verify

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return log_of_five(tmp_path / "audit")


def test_a_torn_end_is_dropped_and_noted(log: AuditLog) -> None:
    path = only_segment(log)
    with path.open("ab") as file:
        file.write(b'{"number":6,"at"')
    assert verify(log).intact
    assert "unfinished" in verify(log).notes[0]
    record = log.append(kind="test", message="<m/>")
    assert record.number == 6
    assert "16 bytes" in record.note
    assert verify(log).intact
    assert verify(log).notes == ()


def test_a_torn_end_is_dropped_whole_and_noted_once(log: AuditLog) -> None:
    with only_segment(log).open("ab") as file:
        file.write(b'{"number":6,"message":"' + b"m" * 5000)
    entry = Entry(kind="test", message="<m/>", study="", job="", note="")
    notes = [record.note for record in log._append_all([entry, entry])]
    assert notes == ["an unfinished record of 5023 bytes was dropped", ""]
    assert verify(log).intact
    assert verify(log).notes == ()


def append_on_a_full_disk(log: AuditLog, room: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.append(kind="test", message="<m/>")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_record_that_the_disk_had_no_room_for_leaves_nothing(log: AuditLog) -> None:
    path = only_segment(log)
    before = path.read_bytes()
    append_on_a_full_disk(log, len(before) + 20)
    assert path.read_bytes() == before
    assert log.append(kind="test", message="<m/>").number == 6
    assert verify(log).intact


@pytest.mark.parametrize("first_ever", [True, False])
def test_a_day_whose_first_record_was_torn_is_begun_anew(log: AuditLog, tmp_path: Path, first_ever: bool) -> None:
    tomorrow = Clock()
    tomorrow.now += 86_400.0
    log = AuditLog(tmp_path / "new" if first_ever else log.folder, tomorrow)
    append_on_a_full_disk(log, 20)
    assert log.segments()[-1].stat().st_size == 0
    log.segments()[-1].write_bytes(b'{"number"')
    assert log.append(kind="test", message="<m/>").note == "an unfinished record of 9 bytes was dropped"
    assert log.append(kind="test", message="<m/>").note == ""
    assert len(log.segments()) == (1 if first_ever else 2)
    assert verify(log).notes == verify(log).problems == ()


def test_a_crash_between_record_and_head_loses_nothing(log: AuditLog) -> None:
    head = log.folder / "head"
    before = head.read_bytes()
    log.append(kind="test", message="<m/>")
    head.write_bytes(before)
    assert verify(log).intact
    assert log.append(kind="test", message="<m/>").number == 7
    assert verify(log).intact


@pytest.mark.parametrize("line", [0, 2, 4])
def test_behind_a_line_that_is_damaged_the_log_goes_on(log: AuditLog, line: int) -> None:
    segment = only_segment(log)
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"{", b"[", 1)
    segment.write_bytes(b"".join(lines))
    last = log.head()
    assert last
    for number in (1, 2, 3):
        assert log.append(kind="test", message="<m/>").number == last.number + number
    found = verify(log)
    assert not found.intact
    assert any(f"line {line + 1} is no audit record" in problem for problem in found.problems)
