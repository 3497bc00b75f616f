"""The process that receives: C-ECHO and C-STORE into the spool, the ledger's intake, and its heartbeat."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from dicom_nodes.confirmation import Settlement
from dicom_nodes.contexts import Acceptable
from dicom_nodes.notices import Notices
from dicom_nodes.peers import Peers
from dicom_nodes.ports import GRACE_S, bind_all, bind_web, end_all
from dicom_nodes.reception import OPEN_FOR_S, Store
from dicom_nodes.requests import Refused, Rejection
from dicom_nodes.status import NOT_AUTHORIZED, SOP_CLASS_NOT_SUPPORTED, Answer
from dicom_nodes.witness import RecordingWitness
from service.audit.trail import open_trail
from service.health import Health, serve_health
from service.intake import Intake
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.ledger.delivery import Deliveries
from service.ledger.report import Reports
from service.ledger.timekeeping import Reach, Steps, Timekeeping
from service.ledger.work import Work
from service.metrics import LedgerCollector, ListenerMetrics
from service.pipelines import load_pipelines
from service.queue import enqueue, make_app
from service.rounds import Round
from service.spool import open_spool
from service.tracing import open_traces

if TYPE_CHECKING:
    from collections.abc import Collection

    from dicom_nodes.requests import NoticeCommand, Peer, Reception, StoreCommand
    from service.settings import Settings

log = logging.getLogger(__name__)

CALLED_NOT_RECOGNISED = Rejection(
    result=1, source=1, diagnostic=7, reason="the called AE title is not among those that are served"
)
CALLING_NOT_RECOGNISED = Rejection(
    result=1, source=1, diagnostic=3, reason="the calling AE title is not in listener.calling_ae_titles"
)
HEARTBEAT_S = 5.0
BREATH_S = 0.05
ORPHANS_EVERY_S = 86_400.0


class StorageService:
    """Verification and Storage for those who may."""

    def __init__(
        self,
        store: Store,
        *,
        called: Collection[str],
        calling: Collection[str],
        peers: Peers | None = None,
        notices: Notices | None = None,
        reports_to: Collection[str] = (),
    ) -> None:
        """Serve.

        Args:
            store: where instances go.
            called: AE titles of ours that take instances.
            calling: AE titles that may call; empty: any.
            peers: who may, in detail.
            notices: what takes what peers tell us.
            reports_to: AE titles of ours that take such notices, and no instances: those that we send under.
        """
        self._store = store
        self._notices = notices
        self._reports_to = frozenset(reports_to)
        self._peers = peers or Peers({}, known_only=False)
        self._called = frozenset(called)
        self._calling = frozenset(calling)
        self._acceptable = Acceptable()

    def admit(self, peer: Peer) -> Rejection | None:
        """Check the AE titles, and whether the peer is who its title says."""
        if peer.called_ae not in self._called | self._reports_to:
            return CALLED_NOT_RECOGNISED
        if self._calling and peer.calling_ae not in self._calling:
            return CALLING_NOT_RECOGNISED
        return self._peers.admit(peer)

    def contexts(self) -> Acceptable:
        """Accept what we know."""
        return self._acceptable

    def begin(self, command: StoreCommand) -> Reception:
        """Receive an instance."""
        if command.peer.called_ae not in self._called:
            return Refused(Answer(status=NOT_AUTHORIZED, comment="this AE title takes no instances"))
        return self._store.begin(command)

    def notice(self, command: NoticeCommand, data: bytes) -> Answer:
        """Take note of what a peer committed to, or of what a study consists of."""
        return self._notices.take(command, data) if self._notices else Answer(status=SOP_CLASS_NOT_SUPPORTED)

    def leaves(self, peer: Peer) -> None:
        """Let the peer come again."""
        self._peers.ended(peer.association)

    def ended(self, peer: Peer) -> None:
        """Let the intake count the study as complete; if the ledger is away, the entry expires by itself."""
        try:
            self._store.close(peer.association)
        except Exception as error:  # noqa: BLE001 -- the association is over, nobody else will report it
            log.warning("the end of an association could not be recorded: %s", type(error).__name__)


class Listener:
    """Everything the process holds, built from the settings."""

    def __init__(self, settings: Settings) -> None:
        pipelines = load_pipelines(settings)
        engine = open_database(settings.database_url)
        arrivals = Arrivals(engine)
        app = make_app(settings)
        self._settings = settings
        self._woken = threading.Event()
        self._steps = Steps()
        self._timekeeping = Timekeeping(engine)
        self._reports = Reports(engine)
        self._spool = open_spool(settings)
        self._registry = CollectorRegistry()
        self._registry.register(LedgerCollector(self._reports))
        metrics = ListenerMetrics(self._registry)
        self._trail = open_trail(settings, "listener", failed=metrics.audit_failures.inc)
        self._traces = open_traces(settings, "listener")
        witness = RecordingWitness(self._trail, metrics, self._traces)
        self._store = Store(spool=self._spool, arrivals=arrivals, stored=self._woken.set, witness=witness)
        self._intake = Intake(
            arrivals=arrivals,
            work=Work(engine),
            pipelines=pipelines,
            wake=lambda job, priority: enqueue(app, job, priority),
            quiet_period_s=settings.intake.quiet_period_s,
            clock_was_set=self._clock_was_set,
        )
        titles = {title for entry in pipelines for title in entry.called_ae_titles}
        service = StorageService(
            self._store,
            called={settings.listener.ae_title, *titles},
            reports_to={settings.sender.ae_title},
            calling=settings.listener.calling_ae_titles,
            peers=Peers(settings.peers, known_only=settings.listener.known_peers_only),
            notices=Notices(
                arrivals,
                Settlement(Deliveries(engine), settings, self._trail, self._traces),
                announced=self._woken.set,
            ),
        )
        self._servers = bind_all(settings, service, witness.turned_away)
        self._web = bind_web(settings, self._store, titles, witness.turned_away) if settings.dicomweb.port else None
        self._health = Health({"ledger": self._reports.answers, "spool": self._spool.check_space})

    def run(self, stop: threading.Event) -> None:
        """Serve until told to stop, then let open associations finish."""
        removed = self._spool.prepare()
        if removed:
            log.info("%d instances that were half received when the listener last ended were removed", removed)
        finished = threading.Event()
        rounds = threading.Thread(target=self._rounds, args=(finished,), name="intake", daemon=True)
        orphans = threading.Thread(target=self._look_for_orphans, args=(finished,), name="orphans", daemon=True)
        http = self._settings.http
        with self._trail.application():
            endpoints = serve_health(self._health, self._registry, host=http.host, port=http.listener_port)
            for server in self._servers:
                server.start()
            if self._web:
                self._web.start()
                log.info("STOW-RS at %s:%d", self._settings.dicomweb.host, self._web.port)
            rounds.start()
            orphans.start()
            log.info("listening as %s at %s", self._settings.listener.ae_title, self._place)
            stop.wait()
            end_all([*self._servers, *([self._web] if self._web else [])])
            finished.set()
            self._woken.set()
            rounds.join(timeout=GRACE_S)
            self._traces.close()
            if endpoints:
                endpoints.stop()

    @property
    def _place(self) -> str:
        return ", ".join(f"{self._settings.listener.host}:{server.port}" for server in self._servers)

    def _clock_was_set(self) -> bool:
        found = self._steps.happened()
        if found:
            self._timekeeping.begin_anew(association_s=OPEN_FOR_S)
        return found

    def _sweep(self) -> None:
        sender = self._settings.sender
        self._timekeeping.pull_in(
            Reach(
                job_lease_s=self._settings.worker.lease_s,
                delivery_lease_s=sender.lease_s,
                delivery_pause_s=sender.longest_retry_s,
                confirmation_s=sender.confirm_timeout_s,
                association_s=OPEN_FOR_S,
            )
        )
        self._intake.sweep()

    def _rounds(self, finished: threading.Event) -> None:
        intake = Round("intake", 0.0, self._intake.run_once)
        timed = [
            Round("heartbeat", HEARTBEAT_S, lambda: self._reports.announce("listener", self._place)),
            Round("keeping associations open", HEARTBEAT_S, self._store.renew),
            Round("sweep", self._settings.intake.sweep_interval_s, self._sweep),
        ]
        while not finished.is_set():
            self._health.beat()
            intake.run_if_due(time.monotonic())
            for entry in timed:
                entry.run_if_due(time.monotonic())
            self._woken.wait(self._settings.intake.interval_s)
            self._woken.clear()
            # What arrives in a stream is looked at together: each look costs a wait for the disk.
            finished.wait(BREATH_S)
        intake.run_if_due(time.monotonic())

    def _look_for_orphans(self, finished: threading.Event) -> None:
        """Go through all files in a thread of its own: that takes minutes where there are many."""
        search = Round("looking for files without a row", 0.0, self._store.set_orphans_aside)
        while not finished.is_set():
            search.run_if_due(time.monotonic())
            finished.wait(ORPHANS_EVERY_S)


def run_listener(settings: Settings, stop: threading.Event) -> None:
    """Receive studies until `stop` is set.

    Raises:
        SettingsError: a pipeline, the ledger or the port cannot be used; the message says which setting.
    """
    Listener(settings).run(stop)
