"""A listener that speaks TLS, with an authority of its own, and what it takes to call it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from network import AE
from prometheus_client import CollectorRegistry
from require import require_tool

from dicom_nodes.budgets import Limits
from dicom_nodes.listener import StorageService
from dicom_nodes.peers import Peers
from dicom_nodes.reception import Store
from dicom_nodes.requestor import Destination
from dicom_nodes.server import Server
from dicom_nodes.witness import RecordingWitness
from service.audit.chain import AuditLog
from service.audit.trail import Trail
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.metrics import ListenerMetrics
from service.spool import Spool
from service.tls import ServerContexts, client_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from certificates import Authority, Pair

    from service.sections import Peer


HANDSHAKE_S = 3.0


@dataclass(frozen=True, kw_only=True)
class House:
    """A listener's TLS server with an authority of its own."""

    port: int
    authority: Authority
    spool: Spool
    audit: AuditLog
    registry: CollectorRegistry

    def stored(self) -> int:
        return len([path for path in self.spool.root.rglob("*.dcm")])  # noqa: C416

    def alerts(self) -> int:
        return sum(record.kind == "alert" for record, _ in self.audit.records())

    def turned_away(self, reason: str) -> float:
        return self.registry.get_sample_value("pellucid_associations_rejected_total", {"reason": reason}) or 0.0


@contextmanager
def tls_station(
    folder: Path, authority: Authority, peers: Mapping[str, Peer], *, known_only: bool, crl: str = ""
) -> Iterator[House]:
    engine = open_database(f"sqlite:///{folder / 'ledger.sqlite'}")
    spool = Spool(folder / "spool")
    spool.prepare()
    registry = CollectorRegistry()
    audit = AuditLog(folder / "audit")
    witness = RecordingWitness(Trail(audit, process="listener"), ListenerMetrics(registry))
    own = authority.issue("listener")
    server = Server(
        StorageService(
            Store(spool=spool, arrivals=Arrivals(engine), stored=lambda: None, witness=witness),
            called={AE},
            calling=(),
            peers=Peers(peers, known_only=known_only),
        ),
        host="127.0.0.1",
        port=0,
        limits=Limits(association_timeout_s=HANDSHAKE_S, network_timeout_s=20.0),
        tls=ServerContexts(
            certificate=str(own.certificate), key=str(own.key), trusted=str(authority.path), crl=crl
        ).current,
        turned_away=witness.turned_away,
    )
    server.start()
    try:
        yield House(port=server.port, authority=authority, spool=spool, audit=audit, registry=registry)
    finally:
        server.stop(grace_s=1.0)
        engine.dispose()


def dcmtk(tool: str, house: House, own: Pair | None, *arguments: str, trusted: Path | None = None) -> int:
    """Run one of dcmtk's programs over TLS and return its exit code."""
    secured = ["+tls", str(own.key), str(own.certificate)] if own else ["+tla"]
    trusting = ["+cf", str(trusted or house.authority.path)]
    place = ["-aec", AE, "-aet", "CT1", "127.0.0.1", str(house.port)]
    command = [require_tool(tool), *secured, *trusting, *place, *arguments]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode


def destination(house: House, own: Pair | None = None, **changes: object) -> Destination:
    context = client_context(
        trusted=str(house.authority.path),
        certificate=str(own.certificate) if own else "",
        key=str(own.key) if own else "",
        check_name=not changes.get("certificate"),
    )
    values = {"host": "127.0.0.1", "port": house.port, "called": AE, "calling": "CT1", "timeout_s": 20.0}
    return Destination(**{**values, "tls": context, **changes})
