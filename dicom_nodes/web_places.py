"""What clients of the HTTP server may take: places, and time by their pace."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dicom_nodes.wire import Patience

if TYPE_CHECKING:
    from collections.abc import Collection

_HEADER_S = 10.0
_IDLE_S = 30.0
_BYTES_PER_S = 1024.0
_WAITED_S = 3.0
_ROOM_S = 1.0


@dataclass(frozen=True, kw_only=True)
class WebLimits:
    """How many connections there may be, and how slow they."""

    connections: int = 20
    connections_per_address: int = 10
    minimum_bytes_per_s: float = 4096.0
    slow_timeout_s: float = 60.0

    def for_head(self) -> tuple[Patience, ...]:
        """Return the patience with a head: as a whole it must come in time."""
        return (Patience(_HEADER_S, bytes_per_s=float("inf")),)

    def for_body(self) -> tuple[Patience, ...]:
        """Return the patiences with a body: it may not fall silent, and must keep up a pace in the long run."""
        silence = Patience(_IDLE_S, bytes_per_s=min(_BYTES_PER_S, self.minimum_bytes_per_s))
        return silence, Patience(self.slow_timeout_s, bytes_per_s=self.minimum_bytes_per_s)


class Holder(Protocol):
    """A connection that has a place."""

    address: str

    @property
    def kept_waiting_s(self) -> float:
        """For how long the peer has kept us waiting, less what it earned back by its pace."""

    def abort(self) -> None:
        """End it from another thread."""


class Places:
    """The places of a server. Where none is free, a newcomer gets that of a connection that keeps us waiting."""

    def __init__(self, limits: WebLimits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._held: set[Holder] = set()

    def __len__(self) -> int:
        return len(self._held)

    def held(self) -> list[Holder]:
        """Return who has a place."""
        with self._changed:
            return list(self._held)

    def take(self, holder: Holder) -> bool:
        """Take a place. One address has no more than its share: beyond it only its own connections make room."""
        with self._changed:
            same = [other for other in self._held if other.address == holder.address]
            if len(same) >= self._limits.connections_per_address and not self._make_room(same):
                return False
            if len(self._held) >= self._limits.connections and not self._make_room(self._held):
                return False
            self._held.add(holder)
            return True

    def give_back(self, holder: Holder) -> None:
        """Leave a place to others."""
        with self._changed:
            self._held.discard(holder)
            self._changed.notify_all()

    def _make_room(self, crowd: Collection[Holder]) -> bool:
        """End the connection that has kept us waiting longest, if that is long."""
        slowest = max(crowd, key=lambda holder: holder.kept_waiting_s)
        if slowest.kept_waiting_s < _WAITED_S:
            return False
        slowest.abort()
        return self._changed.wait_for(lambda: slowest not in self._held, timeout=_ROOM_S)
