"""Studies that hang, exhaust memory or crash native code in whoever analyses them."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import TYPE_CHECKING

from dicom_nodes.client import read_file
from faults.archives import OrthancArchive
from faults.lab import SETTLE_S, Lab
from faults.stores import TWO_WORKERS
from service.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.modality import Sent
    from faults.report import Row

ATTEMPTS = 3
OTHERS = 8
PACE_S = 1.0
DELAYED_AT_MOST = 1.1
"""Times their turnaround without poison, while one of two workers swallows it."""
DELAYED_AT_MOST_ONCE = 1.5
"""Likewise where a row runs once: the median of so few varies by a quarter. A worker that starts anew makes it 5."""
POISONS = {"crash": "study crashes native code", "memory": "study exhausts memory", "hang": "study hangs"}
_DEADLINE = {"PELLUCID__WORKER__TASK_TIME_LIMIT_S": "8.0", "PELLUCID__WORKER__LEASE_S": "2.0"}


def studies(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """One row per poison: it is set aside after three attempts, and healthy studies go on."""
    archive = OrthancArchive(folder / "orthanc")
    with Lab(folder, archive, seed=seed, faults=["poisoned"], settings=_DEADLINE, roles=TWO_WORKERS) as lab:
        for poison, name in POISONS.items():
            row = lab.row(name)
            alone: list[float] = []
            beside: list[float] = []
            for _ in range(trials):
                # In turns, so that a machine that grows slower meanwhile is the same to both.
                alone += _turnaround(lab, *_healthy(lab))
                beside += _poisoned(lab, row, poison)
            ratio = median(beside) / median(alone)
            row.notes.append(
                f"others took {ratio:.2f} times as long: {median(beside):.2f} s, alone {median(alone):.2f} s"
            )
            if ratio > (DELAYED_AT_MOST if trials > 1 else DELAYED_AT_MOST_ONCE):
                row.wrong("others were delayed")
            yield lab.close(row)


def _healthy(lab: Lab) -> list[Sent]:
    """Send films at the pace of a department, one after the other, and wait for their results."""
    sent = []
    for film in lab.modality.films(OTHERS):
        sent.append(lab.modality.send(film))
        time.sleep(PACE_S)
    found = [entry for entry in sent if entry]
    lab.auditor.wait_settled(found, timeout_s=SETTLE_S)
    return found


def _turnaround(lab: Lab, *sent: Sent) -> list[float]:
    """Seconds from a job's creation to the delivery of its last object."""
    uids = {entry.sop_instance_uid for entry in sent}
    return [
        (report.delivered_at - report.job.created_at).total_seconds()
        for report in lab.pellucid.reports.jobs(limit=1000)
        if report.delivered_at and uids & set(report.job.sop_instance_uids)
    ]


def _poisoned(lab: Lab, row: Row, poison: str) -> list[float]:
    """Send a poisoned study among healthy ones; return how long those took."""
    (bad,) = lab.modality.films(1)
    uid = read_file(bad).sop_instance_uid
    known = json.loads(lab.pellucid.poisons.read_text())
    lab.pellucid.poisons.write_text(json.dumps({**known, uid: poison}))
    begun = time.monotonic()
    lab.modality.send(bad)
    healthy = _healthy(lab)
    lab.recover(row, since=begun)
    reports = {report.job.sop_instance_uids: report.job for report in lab.pellucid.reports.jobs()}
    job = reports[uid,]
    if job.state is not JobState.FAILED or not job.reason:
        row.wrong(f"the poisoned study is {job.state}")
    if job.attempts > ATTEMPTS:
        row.wrong(f"{job.attempts} attempts")
    if any(reports[entry.sop_instance_uid,].state is not JobState.DONE for entry in healthy):
        row.wrong("a healthy study did not get through")
    return _turnaround(lab, *healthy)
