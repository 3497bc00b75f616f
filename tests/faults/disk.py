"""A full or read-only disk: 12 MB of memory under spool, outbox, ledger and temporary files. Needs root, to mount."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from faults.archives import OrthancArchive
from faults.lab import Lab
from workers.sandbox import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from faults.report import Row

    Breaking = Callable[[Path], AbstractContextManager[None]]

OUT_OF_RESOURCES = 0xA700
_BLOCK = b"\0" * (1 << 14)


def full(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """Fill a disk while films are sent, or make it read-only; then free it."""
    if os.geteuid() != 0:
        return
    state, small = folder / "state", folder / "small"
    with ExitStack() as stack:
        disks = [state / "spool", state / "outbox", small / "ledger", small / "temporary"]
        for disk in disks:
            stack.enter_context(_small_disk(disk))
        spool, outbox, ledger, temporary = disks
        settings = {"PELLUCID__LEDGER__DATABASE_URL": json.dumps(f"sqlite:///{ledger / 'ledger.sqlite'}")}
        archive = OrthancArchive(folder / "orthanc")
        with Lab(folder, archive, seed=seed, settings={**settings, "TMPDIR": str(temporary)}) as lab:
            yield _refusing(lab, "disk full under the spool", spool, _filled, trials)
            yield _refusing(lab, "spool is read-only", spool, _read_only, trials)
            yield _refusing(lab, "disk full under the ledger", ledger, _filled, trials)
            yield _waiting(lab, "disk full under the outbox", outbox, _filled, trials)
            yield _waiting(lab, "outbox is read-only", outbox, _read_only, trials)
            yield _temporary(lab, temporary, trials)


def _refusing(
    lab: Lab, fault: str, disk: Path, break_it: Callable[[Path], AbstractContextManager[None]], n: int
) -> Row:
    """Without room for an instance or its row, each is answered 0xA700, and nothing of it stays."""
    row = lab.row(fault)
    for _ in range(n):
        films = lab.modality.films(3)
        with break_it(disk):
            answers = [lab.modality.status_of(film) for film in films]
            partial = list(lab.pellucid.settings.state.directory.glob("spool/incoming/*.part"))
        if set(answers) != {OUT_OF_RESOURCES}:
            row.wrong(f"answers {answers}")
        if partial:
            row.wrong(f"{len(partial)} partial files")
        freed = time.monotonic()
        for film in films:
            lab.modality.send(film)
        lab.recover(row, since=freed)
    return lab.close(row)


def _waiting(lab: Lab, fault: str, disk: Path, break_it: Breaking, n: int) -> Row:
    """Without room for results a job waits, and fails not."""
    row = lab.row(fault)
    for _ in range(n):
        (film,) = lab.modality.films(1)
        with break_it(disk):
            lab.modality.send(film)
            wait_until(lambda: _tried(lab), timeout_s=90, what="no job met the full disk")
            time.sleep(15.0 if n > 1 else 5.0)
            if list(disk.rglob("*.part")):
                row.wrong("partial files")
        lab.recover(row)
    lab.close(row)
    if row.set_aside:
        row.wrong(f"{row.set_aside} jobs did not recover alone")
    return row


def _temporary(lab: Lab, disk: Path, trials: int) -> Row:
    """Nothing depends on room for temporary files."""
    row = lab.row("disk full under temporary files")
    for _ in range(trials):
        with _filled(disk):
            begun = time.monotonic()
            for film in lab.modality.films(2):
                lab.modality.send(film)
            lab.recover(row, since=begun)
    return lab.close(row)


def _tried(lab: Lab) -> bool:
    return any("free space on this disk" in report.job.reason for report in lab.pellucid.reports.jobs(limit=3))


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    """Remount it; while a file is open for writing the kernel refuses."""
    wait_until(lambda: _remounted(disk, "ro"), timeout_s=30, what="the disk is in use")
    try:
        yield
    finally:
        assert _remounted(disk, "rw")


def _remounted(disk: Path, how: str) -> bool:
    command = ["mount", "-o", f"remount,{how}", str(disk)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def _filled(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(_BLOCK):
                    pass
            except OSError:
                pass  # full: that is what was wanted
        yield
    finally:
        filler.unlink(missing_ok=True)
