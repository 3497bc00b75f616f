"""What was sent counts as delivered when the peer commits to it, finds it when asked, or gives it back unchanged."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from dicom_nodes import web_client
from dicom_nodes.commitment import failure, new_transaction_uid, request_commitment
from dicom_nodes.destinations import UnknownDestinationError, destination_of, find_peer
from dicom_nodes.query import find
from dicom_nodes.read_back import Reader
from dicom_nodes.requestor import Destination, NotAcceptedError
from dicom_nodes.status import Verdict
from service.errors import DamagedFileError, DestinationError, RetryableError
from service.records import DeliveryState
from service.tracing import Traces

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from dicom_nodes.references import CommitmentReport
    from dicom_nodes.web_client import WebDestination
    from service.audit.trail import Trail
    from service.ledger.delivery import Deliveries
    from service.records import Delivery
    from service.sections import Peer
    from service.settings import Settings

log = logging.getLogger(__name__)

BATCH = 100
_SAME_ASSOCIATION_S = 2.0
"""So long a report may come on the association that asked; later ones come to our listener."""
_LONGEST_PATIENCE_S = 86_400.0
_SOP_INSTANCE = "00080018"
_REPORTED = "commitment-report"


class Settlement:
    """Puts what a peer says of objects into the ledger."""

    def __init__(self, deliveries: Deliveries, settings: Settings, trail: Trail, traces: Traces | None = None) -> None:
        self._deliveries = deliveries
        self._trail = trail
        self._traces = traces or Traces()
        self._first_s = settings.sender.first_retry_s
        self._longest_s = settings.sender.longest_retry_s

    def settle(self, report: CommitmentReport) -> int:
        """Settle the objects of one request; return how many were waiting for it.

        What the report does not name stays, and is asked for again.
        """
        waiting = self._deliveries.of_transaction(report.transaction_uid)
        for delivery in waiting:
            uid = delivery.object.sop_instance_uid
            if uid in report.failed:
                self._failed(delivery, *failure(report.failed[uid]))
            elif uid in report.committed:
                self._committed(delivery)
        return len(waiting)

    def send_again(self, delivery: Delivery, reason: str) -> None:
        """The peer does not have it after all."""
        log.warning("job %s: %s is sent again: %s", delivery.object.job_id, delivery.object.kind, reason)
        self._trail.confirmed(delivery, held=False, answer=reason)
        self._deliveries.postpone([delivery], reason=reason, first_s=self._first_s, longest_s=self._longest_s)

    def reject(self, delivery: Delivery, reason: str) -> None:
        """Sending it again would not help: an administrator must look."""
        log.error("job %s: %s rejected: %s", delivery.object.job_id, delivery.object.kind, reason)
        self._trail.confirmed(delivery, held=False, answer=reason)
        self._deliveries.rejected(delivery, reason=reason)

    def _committed(self, delivery: Delivery) -> None:
        with self._traces.confirming(_REPORTED, [delivery]):
            self._trail.confirmed(delivery, held=True, answer="Storage Commitment")
            self._deliveries.delivered(delivery)

    def _failed(self, delivery: Delivery, verdict: Verdict, reason: str) -> None:
        with self._traces.confirming(_REPORTED, [delivery]) as step:
            step.error = str(verdict)
            if verdict is Verdict.REJECTED:
                self.reject(delivery, reason)
            else:
                self.send_again(delivery, reason)


class Confirmer:
    """Asks peers for what they were sent."""

    def __init__(self, deliveries: Deliveries, settings: Settings, trail: Trail, traces: Traces | None = None) -> None:
        self._deliveries = deliveries
        self._settings = settings
        self._trail = trail
        self._traces = traces or Traces()
        self._settlement = Settlement(deliveries, settings, trail, self._traces)
        self._reader = Reader(deliveries.engine, settings)

    def confirm(self, destination: str, stop: threading.Event) -> None:
        """Ask for everything of one destination that is due."""
        batch: list[Delivery] | None = None
        while not stop.is_set() and (batch is None or len(batch) == BATCH):
            batch = self._deliveries.claim(
                destination, lease_s=self._settings.sender.lease_s, limit=BATCH, state=DeliveryState.SENT
            )
            if not batch:
                return
            try:
                self._ask(destination, batch)
            except (DestinationError, UnknownDestinationError) as error:
                log.warning("%d objects for %s cannot be confirmed: %s", len(batch), destination, error)
                self._later(batch, reason=f"sent, not confirmed: {error}")

    def _ask(self, destination: str, batch: Sequence[Delivery]) -> None:
        peer = find_peer(self._settings, destination)
        to = destination_of(self._settings, peer)
        if peer.confirm == "none":
            for delivery in batch:
                self._deliveries.delivered(delivery)
        elif peer.confirm == "commitment" and isinstance(to, Destination):
            self._ask_for_commitment(to, batch)
        else:
            self._look_for(peer, to, batch)

    def _ask_for_commitment(self, to: Destination, batch: Sequence[Delivery]) -> None:
        transaction = new_transaction_uid()
        # First the ledger: the answer may be faster than we are.
        self._deliveries.asked(
            batch,
            transaction_uid=transaction,
            again_after_s=self._patience_s(batch),
            reason="sent; the peer was asked for storage commitment",
        )
        instances = [(entry.object.sop_class_uid, entry.object.sop_instance_uid) for entry in batch]
        try:
            with self._traces.confirming("commitment-request", batch):
                report = request_commitment(to, transaction, instances, wait_s=_SAME_ASSOCIATION_S)
        except NotAcceptedError:
            log.warning("%s does not offer Storage Commitment: its success has to do", to.called)
            for delivery in batch:
                self._deliveries.delivered(delivery, reason="the peer does not offer Storage Commitment")
            return
        if report is not None:
            self._settlement.settle(report)

    def _patience_s(self, batch: Sequence[Delivery]) -> float:
        """Wait as long again as was waited so far: some archives commit hours later, and only to the last request."""
        waited = max((time.time() - entry.sent_at.timestamp() for entry in batch if entry.sent_at), default=0.0)
        return max(self._settings.sender.confirm_timeout_s, min(waited, _LONGEST_PATIENCE_S))

    def _look_for(self, peer: Peer, to: Destination | WebDestination, batch: Sequence[Delivery]) -> None:
        limit_s = self._settings.sender.confirm_timeout_s
        for delivery in batch:
            if self._finds(to, delivery):
                if peer.confirm == "retrieve":
                    self._read_back(peer, to, delivery)
                else:
                    self._trail.confirmed(delivery, held=True, answer="found by a query")
                    self._deliveries.delivered(delivery)
            elif delivery.sent_at is not None and time.time() - delivery.sent_at.timestamp() > limit_s:
                self._settlement.send_again(delivery, "the peer took it, but does not find it")
            else:
                self._later([delivery], reason="sent; the peer does not find it yet")

    def _finds(self, to: Destination | WebDestination, delivery: Delivery) -> bool:
        with self._traces.confirming("query", [delivery]) as step:
            found = _holds(to, delivery)
            step.error = "" if found else "not found"
        return found

    def _read_back(self, peer: Peer, to: Destination | WebDestination, delivery: Delivery) -> None:
        try:
            with self._traces.confirming("read-back", [delivery]) as step:
                found = self._reader.check(peer, to, delivery.object)
                step.error = "differs" if found.lie else ""
        except RetryableError as error:
            self._later([delivery], reason=f"sent, not read back: {error}")
            return
        except DamagedFileError as error:
            self._settlement.reject(delivery, f"its file in the outbox is needed to compare: {error}")
            return
        if found.lie:
            self._settlement.reject(delivery, found.lie)
        else:
            self._trail.confirmed(delivery, held=True, answer=f"read back and compared; {found.remark}".rstrip("; "))
            self._deliveries.delivered(delivery, reason=found.remark)

    def _later(self, batch: Sequence[Delivery], *, reason: str) -> None:
        pause = min(self._settings.sender.confirm_timeout_s / 4, self._settings.sender.longest_retry_s)
        self._deliveries.asked(batch, transaction_uid="", again_after_s=pause, reason=reason)


def _holds(to: Destination | WebDestination, delivery: Delivery) -> bool:
    entry = delivery.object
    if isinstance(to, Destination):
        keys = {
            "StudyInstanceUID": entry.study_instance_uid,
            "SeriesInstanceUID": entry.series_instance_uid,
            "SOPInstanceUID": entry.sop_instance_uid,
        }
        found = [str(match.get("SOPInstanceUID", "")) for match in find(to, "IMAGE", keys)]
    else:
        path = f"/studies/{entry.study_instance_uid}/series/{entry.series_instance_uid}/instances"
        matches = web_client.query(to, path, {"SOPInstanceUID": entry.sop_instance_uid})
        found = [web_client.value(match, _SOP_INSTANCE) for match in matches]
    return entry.sop_instance_uid in found
