"""A PACS that answers requests for storage commitment with failure, never, late, twice, or for somebody else."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pynetdicom import AE, build_role, evt

from dicom_nodes.references import ALL_COMMITTED, COMMITMENT, COMMITMENT_INSTANCE, SOME_FAILED
from faults.archives import FaultyArchive
from faults.lab import Lab
from workers.sandbox import PACS_AE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from faults.report import Row

LATE_S = 6.0
"""Longer than the campaign's `sender.confirm_timeout_s`."""
_SILENT_S = 9.0
_PROCESSING_FAILURE = 0x0110


class CommittingArchive(FaultyArchive):
    """Reports on an association of its own to our listener, as archives do that commit later.

    `commits` is `all`, `fails`, `never`, `late`, `twice` or `stranger`.
    """

    def __init__(self) -> None:
        self.commits = "all"
        self.asked: list[str] = []
        """Transaction UIDs."""
        self.answers: list[int | None] = []
        """What our listener answered to reports."""
        self.our_port = 0
        self.late_s = LATE_S
        super().__init__()

    def _handlers(self, entity: AE) -> list[Any]:
        entity.add_supported_context(COMMITMENT)
        return [*super()._handlers(entity), (evt.EVT_N_ACTION, self._asked)]

    def _asked(self, event: Any) -> tuple[int, None]:
        asked = event.action_information
        self.asked.append(str(asked.TransactionUID))
        threading.Thread(target=self._answer, args=(self.commits, asked), daemon=True).start()
        return 0x0000, None

    def _answer(self, commits: str, asked: Dataset) -> None:
        if commits == "never":
            return
        if commits == "late":
            time.sleep(self.late_s)
        if commits == "stranger":
            asked.TransactionUID = f"2.25.{uuid.uuid4().int}"
        for _ in range(2 if commits == "twice" else 1):
            self._report(asked, failed=commits == "fails")

    def _report(self, asked: Dataset, *, failed: bool) -> None:
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        if failed:
            for item in asked.ReferencedSOPSequence:
                item.FailureReason = _PROCESSING_FAILURE
            report.FailedSOPSequence = asked.ReferencedSOPSequence
        else:
            report.ReferencedSOPSequence = asked.ReferencedSOPSequence
        entity = AE(PACS_AE)
        entity.add_requested_context(COMMITMENT)
        roles = [build_role(COMMITMENT, scp_role=True)]
        association = entity.associate("127.0.0.1", self.our_port, ae_title="PELLUCID", ext_neg=roles)
        if not association.is_established:
            self.answers.append(None)
            return
        kind = SOME_FAILED if failed else ALL_COMMITTED
        answer, _ = association.send_n_event_report(report, kind, COMMITMENT, COMMITMENT_INSTANCE)
        self.answers.append(answer.get("Status"))
        association.release()


def answering(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """One row per way to answer; 2 objects a trial."""
    archive = CommittingArchive()
    with Lab(folder, archive, seed=seed, confirm="commitment", before=_introduce) as lab:
        yield _row(lab, archive, trials, "fails", _until(lambda: len(archive.requests), 4), sends=(4, 40))
        yield _row(lab, archive, trials, "never", lambda: time.sleep(_SILENT_S), sends=(2, 2))
        yield _row(lab, archive, trials, "stranger", lambda: time.sleep(_SILENT_S), sends=(2, 2))
        yield _row(lab, archive, trials, "late", None, sends=(2, 2))
        yield _row(lab, archive, trials, "twice", None, sends=(2, 2))


def _introduce(lab: Lab) -> None:
    assert isinstance(lab.archive, CommittingArchive)
    lab.archive.our_port = lab.pellucid.port


def _row(
    lab: Lab,
    archive: CommittingArchive,
    trials: int,
    commits: str,
    meanwhile: Callable[[], None] | None,
    *,
    sends: tuple[int, int],
) -> Row:
    """Let the PACS answer so; with `meanwhile`, nothing may be delivered until it commits as it should."""
    row = lab.row(f"commitment: {commits}")
    for _ in range(trials):
        archive.commits = commits
        archive.requests.clear()
        archive.answers.clear()
        (film,) = lab.modality.films(1)
        sent = lab.modality.send(film)
        assert sent
        if meanwhile:
            wait_until(lambda: len(archive.requests) >= 2, timeout_s=60, what="nothing was sent")
            meanwhile()
            if _delivered(lab, sent.sop_instance_uid):
                row.wrong("delivered, and nothing was committed")
            archive.commits = "all"
        lab.recover(row)
        if not sends[0] <= len(archive.requests) <= sends[1]:
            row.wrong(f"{len(archive.requests)} requests to store 2 objects")
        if any(status != 0x0000 for status in archive.answers):
            row.wrong(f"our listener answered reports with {archive.answers}")
    return lab.close(row)


def _delivered(lab: Lab, sop_instance_uid: str) -> int:
    (report,) = [
        entry for entry in lab.pellucid.reports.jobs(limit=3) if sop_instance_uid in entry.job.sop_instance_uids
    ]
    return report.delivered


def _until(count: Callable[[], int], least: int) -> Callable[[], None]:
    return lambda: wait_until(lambda: count() >= least, timeout_s=60, what="it was not sent again")
