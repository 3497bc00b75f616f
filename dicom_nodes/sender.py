"""The process that delivers: one thread per destination, back-off for ever, state per object and destination."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from dicom_nodes.client import send
from dicom_nodes.confirmation import Confirmer
from dicom_nodes.destinations import UnknownDestinationError, destination_of, find_peer
from dicom_nodes.listener import HEARTBEAT_S
from dicom_nodes.outgoing import SendFile
from dicom_nodes.requestor import Destination
from dicom_nodes.status import Verdict, describe
from dicom_nodes.web_client import store
from service.audit.syslog import start_forwarding
from service.audit.trail import open_trail
from service.errors import DamagedFileError, RetryableError
from service.health import Health, serve_health
from service.ledger.database import open_database
from service.ledger.delivery import Deliveries
from service.ledger.report import Reports
from service.metrics import LedgerCollector, SenderMetrics
from service.outbox import open_outbox
from service.records import DeliveryState
from service.rounds import Round
from service.storage import clear_copies
from service.tracing import open_traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from dicom_nodes.outgoing import SendOutcome
    from dicom_nodes.web_client import WebDestination
    from service.records import Delivery
    from service.settings import Settings

log = logging.getLogger(__name__)

BATCH = 10
_BLOCK_BYTES = 1 << 20


class Sender:
    """Sends what is due; several senders may share a ledger."""

    def __init__(self, settings: Settings) -> None:
        engine = open_database(settings.database_url)
        self._settings = settings
        self._deliveries = Deliveries(engine)
        self._reports = Reports(engine)
        self._outbox = open_outbox(settings)
        self._registry = CollectorRegistry()
        self._registry.register(LedgerCollector(self._reports))
        self._metrics = SenderMetrics(self._registry)
        self._trail = open_trail(settings, "sender", failed=self._metrics.audit_failures.inc)
        self._traces = open_traces(settings, "sender")
        self._confirmer = Confirmer(self._deliveries, settings, self._trail, self._traces)
        self._health = Health({"ledger": self._reports.answers, "outbox": self._outbox.check})
        self._threads: dict[str, threading.Thread] = {}
        self._tasks: dict[str, Round] = {}
        self._in_hand: dict[str, list[Delivery]] = {}
        """The batch that is being sent to each destination."""

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; the object on its way is finished."""
        rounds = [
            Round("heartbeat", HEARTBEAT_S, lambda: self._reports.announce("sender")),
            Round("looking for deliveries", 0.0, lambda: self._dispatch(stop)),
            Round("renewing leases", self._settings.sender.lease_s / 3, self._renew),
        ]
        http = self._settings.http
        clear_copies(self._settings)
        with self._trail.application():
            endpoints = serve_health(self._health, self._registry, host=http.host, port=http.sender_port)
            forwarding = start_forwarding(self._settings, stop)
            log.info("sending as %s", self._settings.sender.ae_title)
            while not stop.is_set():
                self._health.beat()
                for entry in rounds:
                    entry.run_if_due(time.monotonic())
                stop.wait(self._settings.sender.poll_interval_s)
            for thread in (*self._threads.values(), *([forwarding] if forwarding else [])):
                thread.join(timeout=self._settings.sender.timeout_s)
            self._traces.close()
            if endpoints:
                endpoints.stop()

    def deliver(self, destination: str, stop: threading.Event) -> int:
        """Send everything that is due for one destination; return how many objects it has got."""
        delivered = 0
        while not stop.is_set():
            batch = self._deliveries.claim(destination, lease_s=self._settings.sender.lease_s, limit=BATCH)
            if not batch:
                break
            self._in_hand[destination] = batch
            try:
                delivered += self._deliver_batch(destination, batch, stop)
            finally:
                del self._in_hand[destination]
        return delivered

    def _renew(self) -> None:
        """Keep other senders from what a slow peer is still taking."""
        for batch in list(self._in_hand.values()):
            self._deliveries.renew(batch, lease_s=self._settings.sender.lease_s)

    def _dispatch(self, stop: threading.Event) -> None:
        for destination in self._deliveries.due_destinations():
            self._begin(f"sending to {destination}", partial(self.deliver, destination, stop))
        for destination in self._deliveries.due_destinations(DeliveryState.SENT):
            self._begin(f"confirming with {destination}", partial(self._confirmer.confirm, destination, stop))

    def _begin(self, task: str, step: Callable[[], object]) -> None:
        """Do it in a thread of its own, unless that is still at it: a slow destination delays no other."""
        entry = self._tasks.setdefault(task, Round(task, 0.0, step))
        current, now = self._threads.get(task), time.monotonic()
        if entry.is_due(now) and (current is None or not current.is_alive()):
            thread = threading.Thread(target=entry.run_if_due, args=(now,), daemon=True)
            self._threads[task] = thread
            thread.start()

    def _deliver_batch(self, destination: str, batch: list[Delivery], stop: threading.Event) -> int:
        try:
            peer = find_peer(self._settings, destination)
            to = destination_of(self._settings, peer)
        except UnknownDestinationError as error:
            self._hold(batch, str(error))
            return 0
        with ExitStack() as files:
            intact = self._intact(batch, files)
            return self._send(to, intact, stop, confirm=peer.confirm != "none") if intact else 0

    def _send(
        self, to: Destination | WebDestination, intact: dict[Path, Delivery], stop: threading.Event, *, confirm: bool
    ) -> int:
        delivered = 0
        open_deliveries = dict(intact)
        self._audit_begin(to, intact.values())
        files = [_file(path, entry) for path, entry in intact.items()]
        with closing(send(files, to) if isinstance(to, Destination) else store(files, to)) as outcomes:
            begun_at = time.time()
            for outcome in outcomes:
                delivery = open_deliveries.pop(outcome.path)
                self._note(delivery, to, outcome, begun_at=begun_at)
                if outcome.verdict is Verdict.DELIVERED:
                    if confirm:
                        self._deliveries.sent(delivery)
                    else:
                        self._deliveries.delivered(delivery, reason=outcome.reason)
                    delivered += 1
                elif outcome.verdict is Verdict.REJECTED:
                    log.warning("job %s: %s rejected: %s", delivery.object.job_id, delivery.object.kind, outcome.reason)
                    self._deliveries.rejected(delivery, reason=outcome.reason)
                elif outcome.unreachable:
                    self._hold([delivery, *open_deliveries.values()], outcome.reason)
                    break
                else:
                    self._postpone([delivery], outcome.reason)
                # What is left keeps its lease and comes back when that has run out.
                if stop.is_set():
                    break
                begun_at = time.time()
        return delivered

    def _audit_begin(self, to: Destination | WebDestination, batch: Iterable[Delivery]) -> None:
        """Audit the first try of each job's objects; later ones only when they succeed or are over."""
        first_tries = [entry for entry in batch if entry.attempts == 0]
        for job in dict.fromkeys(entry.object.job_id for entry in first_tries):
            self._trail.sending([entry for entry in first_tries if entry.object.job_id == job], to.host)

    def _note(
        self, delivery: Delivery, to: Destination | WebDestination, outcome: SendOutcome, *, begun_at: float
    ) -> None:
        """Trace, count, audit. Before the ledger: what it calls delivered is in the log, however this process ends."""
        error = "" if outcome.verdict is Verdict.DELIVERED else str(outcome.verdict)
        self._traces.note_delivery("deliver", delivery, attempt=delivery.attempts + 1, begun_at=begun_at, error=error)
        self._metrics.deliveries.labels(delivery.destination, outcome.verdict).inc()
        if outcome.verdict is not Verdict.RETRY:
            status = "no status" if outcome.status is None else describe(outcome.status)
            answer = status if outcome.reason in ("", status) else f"{status}: {outcome.reason}"
            self._trail.sent(delivery, to.host, accepted=outcome.verdict is Verdict.DELIVERED, answer=answer)

    def _postpone(self, batch: Sequence[Delivery], reason: str) -> None:
        log.warning("%d objects for %s wait: %s", len(batch), batch[0].destination, reason)
        pauses = self._settings.sender
        self._deliveries.postpone(batch, reason=reason, first_s=pauses.first_retry_s, longest_s=pauses.longest_retry_s)

    def _hold(self, batch: Sequence[Delivery], reason: str) -> None:
        log.warning("all objects for %s wait: %s", batch[0].destination, reason)
        pauses = self._settings.sender
        self._deliveries.hold(batch, reason=reason, first_s=pauses.first_retry_s, longest_s=pauses.longest_retry_s)

    def _intact(self, batch: Sequence[Delivery], files: ExitStack) -> dict[Path, Delivery]:
        """Sort out objects whose file is not the one that the job made; the others' are here while `files` is open."""
        intact = {}
        for number, delivery in enumerate(batch):
            try:
                path = files.enter_context(self._outbox.file(delivery.object.key))
                sha256 = _sha256(path)
            except RetryableError as error:
                self._hold(batch[number:], str(error))
                break
            except DamagedFileError:
                sha256 = ""
            if sha256 == delivery.object.sha256:
                intact[path] = delivery
            else:
                log.error("job %s: the file of %s is missing or altered", delivery.object.job_id, delivery.object.kind)
                self._deliveries.rejected(
                    delivery, reason="its file in the outbox is missing or altered: restore it, then retry"
                )
        return intact


def run_sender(settings: Settings, stop: threading.Event) -> None:
    """Deliver objects until `stop` is set."""
    Sender(settings).run(stop)


def _file(path: Path, delivery: Delivery) -> SendFile:
    return SendFile(
        path=path,
        sop_class_uid=delivery.object.sop_class_uid,
        sop_instance_uid=delivery.object.sop_instance_uid,
        transfer_syntax_uid=delivery.object.transfer_syntax_uid,
    )


def _sha256(path: Path) -> str:
    """Hash a file; empty when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()
