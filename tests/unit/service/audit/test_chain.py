from __future__ import annotations

import multiprocessing
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from audit_logs import Clock, log_of_five, only_segment

from service.audit.chain import AuditLog, Place, write_place
from service.audit.verify import PURGED, anchor, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = 86_400.0


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return log_of_five(tmp_path / "audit")


def alter(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b"n='2'", b"n='7'") for line in lines]


def remove(lines: list[bytes]) -> list[bytes]:
    return lines[:2] + lines[3:]


def reorder(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def repeat(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[2], *lines[3:]]


def cut_the_end(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def cut_the_beginning(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def reformat(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'","', b'", "') for line in lines]


def put_garbage(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], b"garbage\n", *lines[3:]]


def empty(_lines: list[bytes]) -> list[bytes]:
    return []


def test_an_untouched_log_is_intact(log: AuditLog) -> None:
    found = verify(log)
    assert found.intact
    assert found.records == 5
    assert found.last_hash == [record for record, _ in log.records()][-1].hash


@pytest.mark.parametrize(
    "tamper", [alter, remove, reorder, repeat, cut_the_end, cut_the_beginning, reformat, put_garbage, empty]
)
def test_tampering_shows(log: AuditLog, tamper: Callable[[list[bytes]], list[bytes]]) -> None:
    path = only_segment(log)
    path.write_bytes(b"".join(tamper(path.read_bytes().splitlines(keepends=True))))
    assert not verify(log).intact


@pytest.mark.parametrize("tamper", [alter, remove, cut_the_end, put_garbage, empty])
def test_the_log_goes_on_behind_damage_and_the_damage_still_shows(
    log: AuditLog, tamper: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = only_segment(log)
    path.write_bytes(b"".join(tamper(path.read_bytes().splitlines(keepends=True))))
    record = log.append(kind="test", message="<later/>")
    assert record.number == 6
    assert not verify(log).intact


@pytest.mark.parametrize("tamper", [cut_the_end, empty])
def test_what_is_written_behind_a_cut_end_is_readable_and_says_so(
    log: AuditLog, tamper: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = only_segment(log)
    path.write_bytes(b"".join(tamper(path.read_bytes().splitlines(keepends=True))))
    record = log.append(kind="test", message="<later/>")
    assert record.note == "the log before this was damaged"
    assert [found for found, _ in log.records()][-1] == record


def test_a_removed_segment_shows(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path / "audit", clock)
    for _ in range(3):
        log.append(kind="test", message="<m/>")
        clock.now += DAY
    assert len(log.segments()) == 3
    assert verify(log).intact
    log.segments()[1].unlink()
    assert "segment 000002 is missing" in verify(log).problems


def test_oldest_segments_may_go_when_a_record_says_so(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path / "audit", clock)
    first = log.append(kind="test", message="<m/>")
    clock.now += DAY
    log.append(kind="test", message="<m/>")
    log.segments()[0].unlink()
    assert not verify(log).intact
    log.append(kind=PURGED, message="<p/>", note=anchor(first.number, first.hash))
    assert verify(log).intact


def test_a_rewritten_log_is_told_by_a_hash_known_elsewhere(log: AuditLog, tmp_path: Path) -> None:
    known = [record for record, _ in log.records()][2].hash
    assert verify(log, known_hash=known).intact
    forged = AuditLog(tmp_path / "forged", Clock())
    for _ in range(5):
        forged.append(kind="test", message="<nothing happened/>")
    assert verify(forged).intact
    assert not verify(forged, known_hash=known).intact


def test_reading_goes_on_behind_a_place(log: AuditLog) -> None:
    places = [place for _, place in log.records()]
    assert [record.number for record, _ in log.records(after=places[2])] == [4, 5]
    assert [record.number for record, _ in log.records(after=places[-1])] == []
    assert places[-1] == log.head()
    assert Place().number == 0


def test_reading_goes_on_over_days(log: AuditLog) -> None:
    places = [place for _, place in log.records()]
    tomorrow = Clock()
    tomorrow.now += DAY
    AuditLog(log.folder, tomorrow).append(kind="test", message="<m/>")
    assert len(log.segments()) == 2
    assert [record.number for record, _ in log.records(after=places[3])] == [5, 6]
    assert [record.number for record, _ in log.records(after=places[4])] == [6]


def test_files_are_for_their_owner_alone(log: AuditLog) -> None:
    assert stat.S_IMODE(log.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in log.folder.iterdir()} == {0o600}


def test_records_of_several_threads_wait_for_the_disk_together(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("service.audit.chain.os.fsync", synced.append)
    with ThreadPoolExecutor(8) as pool, log._together._doing:
        made = [pool.submit(log.append, kind="test", message=f"<t n='{number}'/>") for number in range(8)]
        while len(log._together._queue) < 8:
            time.sleep(0.01)
    assert len(synced) == 1
    assert sorted(future.result().number for future in made) == [6, 7, 8, 9, 10, 11, 12, 13]
    found = verify(log)
    assert found.intact
    assert found.records == 13


def append_many(folder: Path, count: int) -> None:
    log = AuditLog(folder)
    for _ in range(count):
        log.append(kind="test", message="<m/>")


def test_processes_that_append_at_once_make_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append_many, args=(tmp_path / "audit", 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * 4
    found = verify(AuditLog(tmp_path / "audit"))
    assert found.intact
    assert found.records == 100


def test_an_end_that_was_cut_together_with_the_head_shows_by_what_was_forwarded(log: AuditLog) -> None:
    records = list(log.records())
    write_place(log.folder / "forwarded", records[3][1])
    assert verify(log).intact
    path = only_segment(log)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    write_place(log.folder / "head", records[1][1])
    assert verify(log).problems == ("record 4, which syslog has, is missing or altered",)


def test_a_log_that_was_emptied_shows_by_what_was_forwarded(log: AuditLog) -> None:
    write_place(log.folder / "forwarded", list(log.records())[-1][1])
    only_segment(log).unlink()
    (log.folder / "head").unlink()
    assert not verify(log).intact


def test_a_log_that_is_younger_than_the_ledger_shows(log: AuditLog) -> None:
    began = datetime.fromtimestamp(Clock.now, UTC)
    assert verify(log, first_arrival=began + timedelta(seconds=1)).intact
    (problem,) = verify(log, first_arrival=began - timedelta(days=1)).problems
    assert "records are missing: the log begins at 2026" in problem
    only_segment(log).unlink()
    (log.folder / "head").unlink()
    assert verify(log).intact
    assert "the log is empty" in verify(log, first_arrival=began).problems[0]


@pytest.mark.parametrize("bit", range(0, 4000, 61))
def test_a_single_bit_that_was_turned_shows(log: AuditLog, bit: int) -> None:
    path = only_segment(log)
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(bytes(data))
    assert not verify(log).intact
