"""Accepts connections without ever waiting for one: budgets for each address, deadlines for everything.

A connection is half open until its whole A-ASSOCIATE-RQ is here. Half-open connections cost one sleeping
thread and no association; when an address has too many, its oldest is closed, so that those who talk get
through.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dicom_nodes.association import ServedAssociation
from dicom_nodes.dimse import ProtocolError
from dicom_nodes.requests import Rejection
from dicom_nodes.upper_layer import ABORT, ASSOCIATE_REQUEST, MAXIMUM_REQUEST_BYTES, Tolerance, read_pdu
from dicom_nodes.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_nodes.requests import NoticeCommand, Peer, Reception, Service, StoreCommand
    from dicom_nodes.status import Answer

log = logging.getLogger(__name__)

LIMIT_EXCEEDED = Rejection(result=2, source=3, diagnostic=2, reason="too many associations")
_ACCEPT_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What peers may take."""

    associations: int = 50
    associations_per_address: int = 20
    half_open: int = 256
    half_open_per_address: int = 32
    pdu_bytes: int = 131072
    association_timeout_s: float = 10.0
    network_timeout_s: float = 30.0
    pdu_timeout_s: float = 10.0
    minimum_bytes_per_s: float = 1024.0

    @property
    def tolerance(self) -> Tolerance:
        """How slow a peer may be once it is associated."""
        return Tolerance(
            silence_s=self.network_timeout_s, half_pdu_s=self.pdu_timeout_s, bytes_per_s=self.minimum_bytes_per_s
        )


class HalfOpen:
    """Connections that have not asked for an association yet, oldest first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, str] = {}

    def enter(self, connection: socket.socket, address: str) -> None:
        """Count a connection; close the oldest one where there are too many."""
        with self._lock:
            same = [other for other, owner in self._connections.items() if owner == address]
            surplus = same[:1] if len(same) >= self._limits.half_open_per_address else []
            if not surplus and len(self._connections) >= self._limits.half_open:
                surplus = [self._oldest_of_the_greediest()]
            for other in surplus:
                del self._connections[other]
                # Its thread waits in `recv` and sees the end of the stream.
                with contextlib.suppress(OSError):
                    other.shutdown(socket.SHUT_RDWR)
            self._connections[connection] = address

    def leave(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._connections.pop(connection, None)

    def __len__(self) -> int:
        return len(self._connections)

    def _oldest_of_the_greediest(self) -> socket.socket:
        greediest = Counter(self._connections.values()).most_common(1)[0][0]
        return next(other for other, owner in self._connections.items() if owner == greediest)


class _Counted:
    """A service behind the limits on associations."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._lock = threading.Lock()
        self._peers: dict[str, Peer] = {}

    def admit(self, peer: Peer) -> Rejection | None:
        with self._lock:
            same = sum(other.address == peer.address for other in self._peers.values())
            if len(self._peers) >= self._limits.associations or same >= self._limits.associations_per_address:
                return LIMIT_EXCEEDED
            rejection = self._service.admit(peer)
            if rejection is None:
                self._peers[peer.association] = peer
            return rejection

    def contexts(self, proposed: list[Any]) -> list[Any]:
        return self._service.contexts(proposed)

    def begin(self, command: StoreCommand) -> Reception:
        return self._service.begin(command)

    def notice(self, command: NoticeCommand, data: bytes) -> Answer:
        return self._service.notice(command, data)

    def ended(self, peer: Peer) -> None:
        with self._lock:
            self._peers.pop(peer.association, None)
        self._service.ended(peer)

    def names(self) -> list[str]:
        with self._lock:
            return list(self._peers)


class Server:
    """A DICOM association acceptor on one port."""

    def __init__(
        self,
        service: Service,
        *,
        host: str,
        port: int,
        limits: Limits,
        allows: Callable[[str], bool] = lambda _address: True,
    ) -> None:
        """Bind the port; `start` begins to accept.

        Args:
            service: what associations are served with.
            host: address to bind.
            port: 0 takes a free one; see `port`.
            limits: what peers may take.
            allows: tells whether an IP address may connect at all.

        Raises:
            OSError: the port cannot be bound.
        """
        self._service = _Counted(service, limits)
        self._limits = limits
        self._allows = allows
        self._half_open = HalfOpen(limits)
        self._associations: set[ServedAssociation] = set()
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=128)
        self._socket.settimeout(_ACCEPT_POLL_S)
        self.port: int = self._socket.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="accept", daemon=True)

    @property
    def half_open(self) -> int:
        """Connections that have not asked for an association yet."""
        return len(self._half_open)

    def open_associations(self) -> list[str]:
        """Names of the admitted associations."""
        return self._service.names()

    def start(self) -> None:
        """Begin to accept connections."""
        self._acceptor.start()

    def stop(self, *, grace_s: float) -> None:
        """Accept no more; let open associations finish for a while, then abort them."""
        self._stopping.set()
        # Wakes `accept` where the system does that; elsewhere it wakes by itself.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._socket.close()
        deadline = time.monotonic() + grace_s
        while self.open_associations() and time.monotonic() < deadline:
            time.sleep(0.05)
        for association in list(self._associations):
            association.abort()
        for thread in list(self._threads):
            thread.join(timeout=1.0)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, peer = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if self._stopping.is_set():
                    return
                # Out of descriptors, or the peer was gone again: the next one may do better.
                log.warning("a connection could not be accepted: %s", error.strerror)
                self._stopping.wait(0.05)
                continue
            self._receive(connection, peer[0].removeprefix("::ffff:"))

    def _receive(self, connection: socket.socket, address: str) -> None:
        if not self._allows(address):
            log.warning("connection from %s closed: the address is not among listener.addresses", address)
            connection.close()
            return
        self._half_open.enter(connection, address)
        thread = threading.Thread(target=self._serve, args=(connection, address), daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.discard(thread)
            self._half_open.leave(connection)
            connection.close()

    def _serve(self, connection: socket.socket, address: str) -> None:
        try:
            request = self._request(connection)
            if request is not None:
                self._serve_association(connection, address, request)
        except OSError:
            log.debug("connection from %s ended before its association", address)
        except Exception as error:  # noqa: BLE001 -- the last frame of this thread
            log.error("association from %s ended: %s", address, type(error).__name__)  # noqa: TRY400
        finally:
            self._half_open.leave(connection)
            connection.close()
            self._threads.discard(threading.current_thread())

    def _request(self, connection: socket.socket) -> bytearray | None:
        """Read the A-ASSOCIATE-RQ; anything else is answered with an abort (PS3.8 table 9-10, AA-1)."""
        deadline = time.monotonic() + self._limits.association_timeout_s
        try:
            return read_pdu(connection, {ASSOCIATE_REQUEST: MAXIMUM_REQUEST_BYTES}, deadline=deadline)[1]
        except ProtocolError:
            connection.settimeout(1.0)
            connection.sendall(ABORT)
            return None
        finally:
            self._half_open.leave(connection)

    def _serve_association(self, connection: socket.socket, address: str, request: bytearray) -> None:
        association = ServedAssociation(
            self._service,
            Wire(connection),
            address=address,
            request=request,
            maximum_pdu_bytes=self._limits.pdu_bytes,
            tolerance=self._limits.tolerance,
        )
        self._associations.add(association)
        try:
            association.serve()
        finally:
            self._associations.discard(association)
