"""Asks a PACS to take responsibility for what it was sent: Storage Commitment, push model (PS3.4 annex J)."""

from __future__ import annotations

import queue
import uuid
from typing import TYPE_CHECKING, Any

from pynetdicom import build_context, evt

from dicom_nodes.contexts import UNCOMPRESSED
from dicom_nodes.references import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    commitment_request,
    read_commitment_report,
)
from dicom_nodes.requestor import associated
from dicom_nodes.status import SUCCESS, Verdict, describe
from service.errors import DestinationError, InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_nodes.references import CommitmentReport
    from dicom_nodes.requestor import Destination

_REQUEST = 1
"""Action type "request storage commitment" (PS3.4 table J.3-1)."""
_FAILURES = {
    0x0110: (Verdict.RETRY, "processing failure"),
    0x0112: (Verdict.RETRY, "the peer does not have it"),
    0x0213: (Verdict.RETRY, "the peer has no room for it"),
    0x0122: (Verdict.REJECTED, "the peer does not commit to this SOP class"),
    0x0119: (Verdict.REJECTED, "the peer has it under another SOP class"),
    0x0131: (Verdict.RETRY, "duplicate transaction UID"),
}


def new_transaction_uid() -> str:
    """Name a request (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def failure(reason: int) -> tuple[Verdict, str]:
    """Say what follows from a failure reason (PS3.3 section C.14.1.1), and why."""
    found, words = _FAILURES.get(reason, (Verdict.RETRY, "a reason without a definition"))
    return found, f"not committed: 0x{reason:04X} {words}"


def request_commitment(
    to: Destination, transaction_uid: str, instances: Sequence[tuple[str, str]], *, wait_s: float
) -> CommitmentReport | None:
    """Ask for commitment to (SOP class, SOP instance) pairs.

    Returns:
        The report, when it came on this association within `wait_s`; None when it will come to our listener.

    Raises:
        NotAcceptedError: the peer does not know Storage Commitment.
        DestinationError: out of reach, refused or no answer.
    """
    reports: queue.Queue[CommitmentReport] = queue.Queue()

    def reported(event: Any) -> tuple[int, None]:
        try:
            reports.put(read_commitment_report(event.event_information))
        except (InvalidInstanceError, AttributeError, ValueError):
            return 0x0110, None
        return SUCCESS, None

    contexts = [build_context(COMMITMENT, list(UNCOMPRESSED))]
    with associated(to, contexts, handlers=[(evt.EVT_N_EVENT_REPORT, reported)]) as association:
        answer, _ = association.send_n_action(
            commitment_request(transaction_uid, instances), _REQUEST, COMMITMENT, COMMITMENT_INSTANCE
        )
        if "Status" not in answer:
            raise DestinationError("the peer gave no answer to the request for storage commitment")
        if answer.Status != SUCCESS:
            raise DestinationError(f"the peer refused the request for storage commitment: {describe(answer.Status)}")
        try:
            return reports.get(timeout=wait_s)
        except queue.Empty:
            return None
