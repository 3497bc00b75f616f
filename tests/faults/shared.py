"""Two of every process on one ledger; instances that come again or with other content; two patients in one study."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydicom import dcmread

from faults.archives import OrthancArchive
from faults.installation import ROLES
from faults.lab import SETTLE_S, Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom import Dataset

    from faults.report import Row

SHORT_LEASE_S = 1.0
"""Shorter than a job takes here."""


def ledger(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """One row per way to share."""
    settings = {"PELLUCID__WORKER__LEASE_S": str(SHORT_LEASE_S)}
    archive = OrthancArchive(folder / "orthanc")
    with Lab(folder, archive, seed=seed, settings=settings, roles=ROLES * 2) as lab:
        yield _together(lab, trials)
        yield _terminated(lab, trials)
        yield _repeated(lab, trials)
        yield _other_content(lab, trials)
        yield _two_patients(lab, trials)


def _together(lab: Lab, trials: int) -> Row:
    """Leases are renewed while a job runs; where one was lost all the same, only the newest holder's work counts."""
    row = lab.row(f"two of each process, leases of {SHORT_LEASE_S} s")
    before = lab.auditor.attempts()
    for _ in range(trials):
        begun = time.monotonic()
        flows = [lab.modality.flow(3, lab.rng) for _ in range(2)]
        for flow in flows:
            flow.join()
        lab.recover(row, since=begun)
    attempts = lab.auditor.attempts() - before
    row.notes.append(f"attempts of jobs: {dict(attempts)}")
    return lab.close(row)


def _terminated(lab: Lab, trials: int) -> Row:
    """SIGTERM under load: the task in hand is finished, what waits is handed over."""
    row = lab.row("SIGTERM under load")
    before = lab.auditor.attempts()
    for _ in range(trials):
        flow = lab.modality.flow(4, lab.rng)
        for role in ROLES:
            time.sleep(lab.rng.uniform(0.2, 1.0))
            lab.pellucid.terminate(role)
        asked = time.monotonic()
        flow.join()
        lab.recover(row, since=asked)
    attempts = lab.auditor.attempts() - before
    row.notes.append(f"attempts of jobs: {dict(attempts)}")
    return lab.close(row)


def _repeated(lab: Lab, trials: int) -> Row:
    row = lab.row("instances that come three times")
    jobs = len(lab.pellucid.reports.jobs(limit=10_000))
    for _ in range(trials):
        begun = time.monotonic()
        for film in lab.modality.films(2) * 3:
            lab.modality.send(film)
        lab.recover(row, since=begun)
    made = len(lab.pellucid.reports.jobs(limit=10_000)) - jobs
    if made != 2 * trials:
        row.wrong(f"{made} jobs for {2 * trials} images")
    return lab.close(row)


def _other_content(lab: Lab, trials: int) -> Row:
    """The same UID again with other pixels: acknowledged, kept apart, flagged, never processed."""
    row = lab.row("same UID, other content")
    for _ in range(trials):
        (film,) = lab.modality.films(1)
        begun = time.monotonic()
        lab.modality.send(film)
        # Both have one UID: once the second is set aside, nobody could tell that the first still waits for its job.
        lab.auditor.wait_settled(lab.modality.acknowledged, timeout_s=SETTLE_S)
        lab.modality.send(_altered(film, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[::-1])))
        lab.recover(row, since=begun)
    lab.close(row)
    if row.set_aside != trials:
        row.wrong(f"{row.set_aside} of {trials} were set aside")
    return row


def _two_patients(lab: Lab, trials: int) -> Row:
    """One Study Instance UID from two patients: each result names the patient of its own image."""
    row = lab.row("one study UID from two patients")
    aside = len(lab.balance().set_aside)
    for _ in range(trials):
        one, other = lab.modality.films(2)
        study = dcmread(one).StudyInstanceUID
        begun = time.monotonic()
        lab.modality.send(one)
        second = _altered(other, lambda dataset: setattr(dataset, "StudyInstanceUID", study))  # noqa: B023
        lab.modality.send(second)
        lab.recover(row, since=begun)
        for film in (one, second):
            source = dcmread(film, stop_before_pixels=True)
            wrong = _of_another_patient(lab, source)
            if wrong:
                row.wrong(f"{wrong} results about an image name another patient")
    lab.close(row)
    row.set_aside -= aside
    return row


def _of_another_patient(lab: Lab, source: Dataset) -> int:
    """Count results about an image that do not name its patient."""
    assert isinstance(lab.archive, OrthancArchive)
    (job,) = [
        report.job
        for report in lab.pellucid.reports.jobs(study_instance_uid=source.StudyInstanceUID)
        if source.SOPInstanceUID in report.job.sop_instance_uids
    ]
    headers = [
        dcmread(lab.outbox.path(entry.key), stop_before_pixels=True)
        for entry in lab.pellucid.reports.objects_of(job.id)
    ]
    return sum((entry.PatientID, entry.PatientName) != (source.PatientID, source.PatientName) for entry in headers)


def _altered(film: Path, change: Callable[[Dataset], None]) -> Path:
    dataset = dcmread(film)
    change(dataset)
    target = film.with_name(f"altered-{film.name}")
    dataset.save_as(target)
    return target
