"""One accepted TCP connection: every wait has an end, and a peer that trickles gets no further one."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time

_NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError)
_QUICK_ACKNOWLEDGEMENT: int | None = getattr(socket, "TCP_QUICKACK", None)
_DRAIN_BYTES = 1 << 16


class Patience:
    """Time to wait for a peer, used up by waiting and earned back by the bytes that come.

    Only time in which there is nothing to read counts: what our own disk takes is not held against the peer.
    A peer that keeps up `bytes_per_s` on average is never cut off; one that is silent is after `limit_s`.
    """

    def __init__(self, limit_s: float, *, bytes_per_s: float) -> None:
        self._limit_s = limit_s
        self._bytes_per_s = bytes_per_s
        self._used_s = 0.0

    @property
    def used_s(self) -> float:
        """Seconds of waiting that were not earned back."""
        return self._used_s

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._limit_s - self._used_s

    def renew(self) -> None:
        """Begin anew: something is complete."""
        self._used_s = 0.0

    def waited(self, seconds: float) -> None:
        """Count time in which nothing came."""
        self._used_s += seconds

    def received(self, count: int) -> None:
        """Count bytes that came."""
        self._used_s = max(0.0, self._used_s - count / self._bytes_per_s)


class Wire:
    """A connected socket, read and written without blocking for longer than allowed."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connection, select.POLLOUT)

    def receive_into(self, view: memoryview, *patiences: Patience) -> int:
        """Read what is there, at least one byte; 0 at the end of the stream.

        Raises:
            TimeoutError: nothing came while all patiences lasted.
            OSError: the connection is broken.
        """
        while True:
            try:
                count = self._connection.recv_into(view)
            except _NOTHING_YET:
                self._wait(patiences)
                continue
            for patience in patiences:
                patience.received(count)
            return count

    def send(self, data: bytes, *, timeout_s: float) -> None:
        """Send everything.

        Raises:
            TimeoutError: the peer does not take it in time.
            OSError: the connection is broken.
        """
        view = memoryview(data)
        deadline = time.monotonic() + timeout_s
        while view:
            try:
                view = view[self._connection.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                left = deadline - time.monotonic()
                if left <= 0 or not self._writable.poll(left * 1000):
                    raise TimeoutError from None

    def abort(self, last_words: bytes = b"") -> None:
        """End the connection from another thread; its own thread sees the end of the stream."""
        # A TLS session must not be written by two threads at once, and `SSLSocket.shutdown` would take it from
        # under its own thread.
        if not isinstance(self._connection, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                self._connection.send(last_words)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def finish(self, *, patience_s: float = 2.0) -> None:
        """Wait a little for the peer to close the connection, as PS3.8 section 9.2 asks (state 13).

        Closing with unread bytes would reset the connection, and take our last words with it.
        """
        with contextlib.suppress(OSError):
            deadline = time.monotonic() + patience_s
            while (left := deadline - time.monotonic()) > 0 and self._readable.poll(left * 1000):
                if not socket.socket.recv(self._connection, _DRAIN_BYTES):
                    return

    def _wait(self, patiences: tuple[Patience, ...]) -> None:
        left = min((patience.left_s for patience in patiences), default=0.0)
        begun = time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._acknowledge()
        readable = self._readable.poll(left * 1000)
        for patience in patiences:
            patience.waited(time.monotonic() - begun)
        if not readable:
            raise TimeoutError

    def _acknowledge(self) -> None:
        """Send the delayed acknowledgement: a sender that waits for it (Nagle) loses 40 ms with each object."""
        if _QUICK_ACKNOWLEDGEMENT is not None:
            with contextlib.suppress(OSError):
                self._connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACKNOWLEDGEMENT, 1)
