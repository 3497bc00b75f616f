"""Accepts connections without ever waiting for one: budgets for each address, deadlines for everything.

A connection is half open until its whole A-ASSOCIATE-RQ is here. Half-open connections cost one sleeping
thread and no association; when an address has too many, its oldest is closed, so that those who talk get
through.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

from dicom_nodes.accepting import connections, open_port
from dicom_nodes.association import ServedAssociation
from dicom_nodes.budgets import Counted, HalfOpen, Limits
from dicom_nodes.dimse import ProtocolError
from dicom_nodes.upper_layer import ABORT, ASSOCIATE_REQUEST, MAXIMUM_REQUEST_BYTES, read_pdu
from dicom_nodes.wire import Wire
from service.tls import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_nodes.budgets import TurnedAway
    from dicom_nodes.requests import Service
    from service.tls import Identity


log = logging.getLogger(__name__)


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
        tls: Callable[[], ssl.SSLContext] | None = None,
        turned_away: TurnedAway = lambda _address, _kind, _reason: None,
    ) -> None:
        """Bind the port; `start` begins to accept.

        Args:
            service: what associations are served with.
            host: address to bind.
            port: 0 takes a free one; see `port`.
            limits: what peers may take.
            allows: tells whether an IP address may connect at all.
            tls: speak TLS on this port with the context that it returns; peers must show a certificate.
            turned_away: hears of every connection or association that is refused: address, kind, reason.

        Raises:
            OSError: the port cannot be bound.
        """
        self._service = Counted(service, limits, turned_away)
        self._tls = tls
        self._turned_away = turned_away
        self._limits = limits
        self._allows = allows
        self._half_open = HalfOpen(limits)
        self._associations: set[ServedAssociation] = set()
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()
        self._socket = open_port(host, port, backlog=128)
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
        for connection, address in connections(self._socket, self._stopping):
            self._receive(connection, address)

    def _receive(self, connection: socket.socket, address: str) -> None:
        if not self._allows(address):
            log.warning("connection from %s closed: the address is not among listener.addresses", address)
            self._turned_away(address, "address", "the address is not among listener.addresses")
            connection.close()
            return
        if self._tls is not None:
            try:
                # Nothing is read or written yet: hands are shaken in the connection's own thread.
                connection = self._tls().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:
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
            identity = self._shake_hands(connection, address) if isinstance(connection, ssl.SSLSocket) else None
            request = self._request(connection)
            if request is not None:
                self._serve_association(connection, address, request, identity)
        except OSError:
            log.debug("connection from %s ended before its association", address)
        except Exception as error:  # noqa: BLE001 -- the last frame of this thread
            log.error("association from %s ended: %s", address, type(error).__name__)  # noqa: TRY400
        finally:
            self._half_open.leave(connection)
            connection.close()
            self._threads.discard(threading.current_thread())

    def _shake_hands(self, connection: ssl.SSLSocket, address: str) -> Identity | None:
        """Negotiate TLS within a deadline.

        Raises:
            OSError: it failed.
        """
        connection.settimeout(self._limits.association_timeout_s)
        try:
            connection.do_handshake()
        except OSError as error:
            reason = (error.reason if isinstance(error, ssl.SSLError) else None) or type(error).__name__
            log.warning("connection from %s closed: TLS was not established (%s)", address, reason)
            self._turned_away(address, "tls", f"TLS was not established: {reason}")
            raise
        return identity_of(connection)

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

    def _serve_association(
        self, connection: socket.socket, address: str, request: bytearray, identity: Identity | None
    ) -> None:
        association = ServedAssociation(
            self._service,
            Wire(connection),
            address=address,
            request=request,
            maximum_pdu_bytes=self._limits.pdu_bytes,
            tolerance=self._limits.tolerance,
            identity=identity,
        )
        self._associations.add(association)
        try:
            association.serve()
        finally:
            self._associations.discard(association)
