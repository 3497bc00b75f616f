"""A backup that is made in the middle of work, while the service runs, and restored elsewhere: nothing is lost."""

from __future__ import annotations

import io
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

from pydicom import dcmread
from require import require_tool

from service.audit.chain import AuditLog
from service.audit.verify import verify
from service.records import JobState
from workers.phantom.files import write_samples
from workers.sandbox import PACS_AE, ReceiverPacs, Sandbox, free_port, wait_until

if TYPE_CHECKING:
    from pathlib import Path

FILMS = 4
HOW_FAR = ("head", "forwarded")
"""How far the audit log goes: copied before it."""


def back_up(state: Path, backup: Path) -> None:
    """As docs/operations.md says: the ledger first, the files after it."""
    backup.mkdir(parents=True)
    with (
        closing(sqlite3.connect(state / "ledger.sqlite")) as source,
        closing(sqlite3.connect(backup / "ledger.sqlite")) as target,
    ):
        source.backup(target)
    (backup / "audit").mkdir()
    for name in HOW_FAR:
        if (state / "audit" / name).is_file():
            shutil.copy2(state / "audit" / name, backup / "audit" / name)
    for name in ("spool", "outbox", "audit"):
        if (state / name).is_dir():
            shutil.copytree(state / name, backup / name, ignore=shutil.ignore_patterns(*HOW_FAR), dirs_exist_ok=True)


def made_by(pellucid: Sandbox) -> dict[str, str]:
    """SHA-256 of every object of every job, by SOP Instance UID."""
    return {
        entry.sop_instance_uid: entry.sha256
        for report in pellucid.reports.jobs()
        for entry in pellucid.reports.objects_of(report.job.id)
    }


def test_a_backup_in_the_middle_of_work_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    pacs = ReceiverPacs(tmp_path / "pacs")
    films = write_samples(tmp_path / "films", count=FILMS, seed=23, size=(256, 256))
    settings = {"PELLUCID__WORKER__THREADS": "1", "PELLUCID__SENDER__LONGEST_RETRY_S": "1.0"}
    # The PACS is down, so that some jobs are done and undelivered while others still wait.
    first = Sandbox(tmp_path / "first", pacs_port=free_port(), settings=settings)
    try:
        first.start()
        first.wait_ready(timeout_s=120)
        send = [require_tool("storescu"), "-aec", "PELLUCID", "-aet", PACS_AE, "127.0.0.1", str(first.port)]
        subprocess.run([*send, *map(str, films)], check=True, timeout=60)
        wait_until(
            lambda: any(report.job.state is JobState.DONE for report in first.reports.jobs()),
            timeout_s=120,
            what="no job was done",
        )
        back_up(first.settings.state.directory, tmp_path / "second" / "state")
        made = made_by(first)
    finally:
        first.stop()
    assert made
    second = Sandbox(tmp_path / "second", pacs_port=pacs.port, settings=settings)
    try:
        second.start()
        reports = second.wait_settled(jobs=FILMS, timeout_s=150)
        assert [report.job.state for report in reports] == [JobState.DONE] * FILMS
        assert {uid for report in reports for uid in report.job.sop_instance_uids} == {
            dcmread(film, stop_before_pixels=True).SOPInstanceUID for film in films
        }
        objects = made_by(second)
        assert len(objects) == 2 * FILMS
        assert made.items() <= objects.items()
        for uid in objects:
            content = pacs.fetch(uid)
            assert content is not None
            assert dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID == uid
    finally:
        second.stop()
        pacs.stop()
    assert verify(AuditLog(tmp_path / "second" / "state" / "audit")).intact
