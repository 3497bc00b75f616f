"""What peers may take: associations, half-open connections, bytes and time."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_nodes.requests import Rejection
from dicom_nodes.upper_layer import Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_nodes.contexts import Acceptable
    from dicom_nodes.requests import NoticeCommand, Peer, Reception, Service, StoreCommand
    from dicom_nodes.status import Answer

    TurnedAway = Callable[[str, str, str], None]

LIMIT_EXCEEDED = Rejection(result=2, source=3, diagnostic=2, reason="too many associations")
_KINDS = {(1, 7): "called-ae", (1, 3): "calling-ae", (3, 2): "limit"}
"""Source and diagnostic of a rejection (PS3.8 table 9-21), in a word."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What peers may take."""

    associations: int = 50
    associations_per_address: int = 20
    half_open: int = 256
    half_open_per_address: int = 32
    pdu_bytes: int = 1 << 20
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
                    socket.socket.shutdown(other, socket.SHUT_RDWR)
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


class Counted:
    """A service behind the limits on associations."""

    def __init__(self, service: Service, limits: Limits, turned_away: TurnedAway) -> None:
        self._service = service
        self._limits = limits
        self._turned_away = turned_away
        self._lock = threading.Lock()
        self._peers: dict[str, Peer] = {}

    def admit(self, peer: Peer) -> Rejection | None:
        """Ask the service, within the limits."""
        rejection = self._admit(peer)
        if rejection is not None:
            kind = _KINDS.get((rejection.source, rejection.diagnostic), "other")
            self._turned_away(peer.address, kind, rejection.reason)
        return rejection

    def _admit(self, peer: Peer) -> Rejection | None:
        with self._lock:
            same = sum(other.address == peer.address for other in self._peers.values())
            if len(self._peers) >= self._limits.associations or same >= self._limits.associations_per_address:
                return LIMIT_EXCEEDED
            rejection = self._service.admit(peer)
            if rejection is None:
                self._peers[peer.association] = peer
            return rejection

    def contexts(self) -> Acceptable:
        """Ask the service."""
        return self._service.contexts()

    def begin(self, command: StoreCommand) -> Reception:
        """Ask the service."""
        return self._service.begin(command)

    def notice(self, command: NoticeCommand, data: bytes) -> Answer:
        """Tell the service."""
        return self._service.notice(command, data)

    def leaves(self, peer: Peer) -> None:
        """Give its place to another one."""
        with self._lock:
            self._peers.pop(peer.association, None)
        self._service.leaves(peer)

    def ended(self, peer: Peer) -> None:
        """Tell the service."""
        self._service.ended(peer)

    def names(self) -> list[str]:
        """Names of the open associations."""
        with self._lock:
            return list(self._peers)
