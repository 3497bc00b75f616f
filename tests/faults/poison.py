"""Studies that hang, exhaust memory or crash native code in whoever analyses them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from dicom_nodes.client import read_file
from faults.archives import OrthancArchive
from faults.lab import Lab
from service.types import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.report import Row

ATTEMPTS = 3
POISONS = {"crash": "study crashes native code", "memory": "study exhausts memory", "hang": "study hangs"}
_DEADLINE = {"PELLUCID__WORKER__TASK_TIME_LIMIT_S": "4.0", "PELLUCID__WORKER__LEASE_S": "2.0"}


def studies(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """One row per poison: it is set aside after three attempts, and healthy studies go on."""
    with Lab(folder, OrthancArchive(folder / "orthanc"), seed=seed, faults=["poisoned"], settings=_DEADLINE) as lab:
        for poison, name in POISONS.items():
            row = lab.row(name)
            for _ in range(trials):
                _poisoned(lab, row, poison)
            yield lab.close(row)


def _poisoned(lab: Lab, row: Row, poison: str) -> None:
    bad, good = lab.modality.films(2)
    uid = read_file(bad).sop_instance_uid
    known = json.loads(lab.pellucid.poisons.read_text())
    lab.pellucid.poisons.write_text(json.dumps({**known, uid: poison}))
    begun = time.monotonic()
    lab.modality.send(bad)
    healthy = lab.modality.send(good)
    lab.recover(row, since=begun)
    reports = {report.job.sop_instance_uids: report.job for report in lab.pellucid.reports.jobs()}
    job = reports[uid,]
    if job.state is not JobState.FAILED or not job.reason:
        row.wrong(f"the poisoned study is {job.state}")
    if job.attempts > ATTEMPTS:
        row.wrong(f"{job.attempts} attempts")
    if healthy is None or reports[healthy.sop_instance_uid,].state is not JobState.DONE:
        row.wrong("a healthy study did not get through")
