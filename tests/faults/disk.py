"""A full disk: 12 MB of memory mounted under spool and outbox. Needs root, to mount."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from faults.archives import OrthancArchive
from faults.lab import Lab
from workers.sandbox import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.report import Row

OUT_OF_RESOURCES = 0xA700
_BLOCK = b"\0" * (1 << 14)


def full(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """Fill the disk while films are sent, then free it."""
    if os.geteuid() != 0:
        return
    state = folder / "state"
    with ExitStack() as stack:
        for name in ("spool", "outbox"):
            stack.enter_context(_small_disk(state / name))
        with Lab(folder, OrthancArchive(folder / "orthanc"), seed=seed) as lab:
            yield _spool(lab, state / "spool", trials)
            yield _outbox(lab, state / "outbox", trials)


def _spool(lab: Lab, disk: Path, trials: int) -> Row:
    row = lab.row("disk full under the spool")
    for _ in range(trials):
        films = lab.modality.films(3)
        with _filled(disk):
            answers = [lab.modality.status_of(film) for film in films]
            partial = list((disk / "incoming").glob("*.part"))
        if set(answers) != {OUT_OF_RESOURCES}:
            row.wrong(f"answers {answers}")
        if partial:
            row.wrong(f"{len(partial)} partial files")
        freed = time.monotonic()
        for film in films:
            lab.modality.send(film)
        lab.recover(row, since=freed)
    return lab.close(row)


def _outbox(lab: Lab, disk: Path, trials: int) -> Row:
    row = lab.row("disk full under the outbox")
    for _ in range(trials):
        (film,) = lab.modality.films(1)
        with _filled(disk):
            lab.modality.send(film)
            wait_until(lambda: _tried(lab), timeout_s=60, what="no job met the full disk")
            time.sleep(15.0)
            if list(disk.rglob("*.part")):
                row.wrong("partial files")
        lab.recover(row)
    lab.close(row)
    if row.set_aside:
        row.wrong(f"{row.set_aside} jobs did not recover alone")
    return row


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
