"""The process that delivers: one thread per destination, back-off for ever, state per object and destination."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from dicom_nodes.client import Destination, SendFile, send
from dicom_nodes.listener import HEARTBEAT_S, Round
from dicom_nodes.status import Verdict, describe
from service.audit.syslog import start_forwarding
from service.audit.trail import open_trail
from service.errors import SettingsError
from service.health import Health, serve_health
from service.ledger.database import open_database
from service.ledger.delivery import Deliveries
from service.ledger.report import Reports
from service.metrics import LedgerCollector, SenderMetrics
from service.outbox import Outbox
from service.tls import client_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from pathlib import Path

    from dicom_nodes.client import SendOutcome
    from service.settings import Peer, Settings
    from service.types import Delivery

log = logging.getLogger(__name__)

BATCH = 10
_BLOCK_BYTES = 1 << 20


class UnknownDestinationError(Exception):
    """The settings do not say where a destination is."""


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
        self._health = Health({"ledger": self._reports.counts})
        self._threads: dict[str, threading.Thread] = {}

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; the object on its way is finished."""
        rounds = [
            Round("heartbeat", HEARTBEAT_S, lambda: self._reports.announce("sender")),
            Round("looking for deliveries", 0.0, lambda: self._dispatch(stop)),
        ]
        http = self._settings.http
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
            if endpoints:
                endpoints.stop()

    def deliver(self, destination: str, stop: threading.Event) -> int:
        """Send everything that is due for one destination; return how many objects it has got."""
        delivered = 0
        while not stop.is_set():
            # Small batches: each is claimed anew, so a lease outlives its batch.
            batch = self._deliveries.claim(destination, lease_s=self._settings.sender.lease_s, limit=BATCH)
            if not batch:
                break
            delivered += self._deliver_batch(destination, batch, stop)
        return delivered

    def _dispatch(self, stop: threading.Event) -> None:
        for destination in self._deliveries.due_destinations():
            current = self._threads.get(destination)
            if current is None or not current.is_alive():
                thread = threading.Thread(target=self._guarded, args=(destination, stop), daemon=True)
                self._threads[destination] = thread
                thread.start()

    def _guarded(self, destination: str, stop: threading.Event) -> None:
        Round(f"sending to {destination}", 0.0, lambda: self.deliver(destination, stop)).run_if_due(0.0)

    def _deliver_batch(self, destination: str, batch: list[Delivery], stop: threading.Event) -> int:
        try:
            to = find_destination(self._settings, destination)
        except UnknownDestinationError as error:
            self._postpone(batch, str(error))
            return 0
        intact = self._intact(batch)
        return self._send(to, intact, stop) if intact else 0

    def _send(self, to: Destination, intact: dict[Path, Delivery], stop: threading.Event) -> int:
        lease_ends = time.monotonic() + self._settings.sender.lease_s - to.timeout_s
        delivered = 0
        open_deliveries = dict(intact)
        self._audit_begin(to, intact.values())
        with closing(send([_file(path, entry) for path, entry in intact.items()], to)) as outcomes:
            for outcome in outcomes:
                delivery = open_deliveries.pop(outcome.path)
                self._note(delivery, to, outcome)
                if outcome.verdict is Verdict.DELIVERED:
                    self._deliveries.delivered(delivery, reason=outcome.reason)
                    delivered += 1
                elif outcome.verdict is Verdict.REJECTED:
                    log.warning("job %s: %s rejected: %s", delivery.object.job_id, delivery.object.kind, outcome.reason)
                    self._deliveries.rejected(delivery, reason=outcome.reason)
                else:
                    self._postpone([delivery], outcome.reason)
                # What is left keeps its lease and comes back when that has run out.
                if stop.is_set() or time.monotonic() > lease_ends:
                    break
        return delivered

    def _audit_begin(self, to: Destination, batch: Iterable[Delivery]) -> None:
        """Audit the first try of each job's objects; later ones only when they succeed or are over."""
        first_tries = [entry for entry in batch if entry.attempts == 0]
        for job in dict.fromkeys(entry.object.job_id for entry in first_tries):
            self._trail.sending([entry for entry in first_tries if entry.object.job_id == job], to.host)

    def _note(self, delivery: Delivery, to: Destination, outcome: SendOutcome) -> None:
        """Audit and count. Before the ledger: what it calls delivered is in the log, however this process ends."""
        self._metrics.deliveries.labels(delivery.destination, outcome.verdict).inc()
        if outcome.verdict is not Verdict.RETRY:
            status = "no status" if outcome.status is None else describe(outcome.status)
            answer = status if outcome.reason in ("", status) else f"{status}: {outcome.reason}"
            self._trail.sent(delivery, to.host, accepted=outcome.verdict is Verdict.DELIVERED, answer=answer)

    def _postpone(self, batch: Iterable[Delivery], reason: str) -> None:
        entries = list(batch)
        log.warning("%d objects for %s wait: %s", len(entries), entries[0].destination, reason)
        self._deliveries.postpone(
            entries,
            reason=reason,
            first_s=self._settings.sender.first_retry_s,
            longest_s=self._settings.sender.longest_retry_s,
        )

    def _intact(self, batch: Iterable[Delivery]) -> dict[Path, Delivery]:
        """Sort out objects whose file is not the one that the job made."""
        intact = {}
        for delivery in batch:
            path = self._outbox.path(delivery.object.key)
            if _sha256(path) == delivery.object.sha256:
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


def open_outbox(settings: Settings) -> Outbox:
    """Return the outbox of the state directory."""
    return Outbox(settings.state.directory.absolute() / "outbox")


def find_destination(settings: Settings, name: str) -> Destination:
    """Look a destination up in `[peers]`: `@AE` by AE title, else by name.

    Raises:
        UnknownDestinationError: no section fits; the message says what to add.
    """
    if name.startswith("@"):
        peer = next((entry for entry in settings.peers.values() if entry.ae_title == name[1:]), None)
        missing = f"no [peers] section has AE title {name[1:]}: add one"
    else:
        peer = settings.peers.get(name)
        missing = f"there is no section [peers.{name}]: add one"
    if peer is None:
        raise UnknownDestinationError(missing)
    return Destination(
        host=peer.host,
        port=peer.port,
        called=peer.ae_title,
        calling=settings.sender.ae_title,
        timeout_s=settings.sender.timeout_s,
        tls=_context(settings, peer) if peer.tls else None,
        certificate=peer.certificate if peer.tls else "",
    )


def _context(settings: Settings, peer: Peer) -> ssl.SSLContext:
    chosen = settings.tls
    try:
        return client_context(
            trusted=chosen.trusted,
            certificate=chosen.certificate,
            key=chosen.key,
            # A certificate that is known by itself needs no name in it; hospitals' devices often have none.
            check_name=not peer.certificate,
        )
    except SettingsError as error:
        raise UnknownDestinationError(str(error)) from None


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
