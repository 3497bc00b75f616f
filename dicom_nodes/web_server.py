"""A small HTTP/1.1 server for large uploads: h11 parses, every wait has an end, memory is bounded."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import h11

from dicom_nodes.accepting import connections, open_port
from dicom_nodes.web_places import Places, WebLimits
from dicom_nodes.wire import Wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from dicom_nodes.budgets import TurnedAway

log = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 18
_MAXIMUM_HEADER_BYTES = 1 << 14
_SEND_S = 30.0


@dataclass(frozen=True, kw_only=True)
class WebRequest:
    """The head of a request."""

    method: str
    path: str
    """Without the query."""
    headers: dict[str, str]
    """Names in lower case."""
    address: str

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, when the client says so."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdigit() else None


@dataclass(frozen=True, kw_only=True)
class WebAnswer:
    """An answer."""

    status: int
    content: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)


class WebService(Protocol):
    """What requests are served with."""

    def answer(self, request: WebRequest, body: Iterator[bytes]) -> WebAnswer:
        """Answer a request. The body comes as it arrives; what is not read of it ends the connection."""


class WebServer:
    """Accepts connections on one port, each in a thread, up to a limit."""

    def __init__(
        self,
        service: WebService,
        *,
        host: str,
        port: int,
        limits: WebLimits,
        allows: Callable[[str], bool] = lambda _address: True,
        turned_away: TurnedAway = lambda _address, _kind, _reason: None,
    ) -> None:
        """Bind the port; `start` begins to accept.

        Raises:
            OSError: the port cannot be bound.
        """
        self._service = service
        self._allows = allows
        self._turned_away = turned_away
        self._limits = limits
        self._places = Places(limits)
        self._stopping = threading.Event()
        self._socket = open_port(host, port, backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="accept http", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._acceptor.start()

    def stop(self, *, grace_s: float) -> None:
        """Accept no more; let requests finish for a while, then end them."""
        self._stopping.set()
        self._acceptor.join()
        self._socket.close()
        deadline = time.monotonic() + grace_s
        while len(self._places) and time.monotonic() < deadline:
            time.sleep(0.05)
        for conversation in self._places.held():
            conversation.abort()

    def _accept(self) -> None:
        for connection, address in connections(self._socket, self._stopping):
            conversation = _Conversation(Wire(connection), address, self._service, self._limits)
            if not self._admits(address, conversation):
                connection.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection, conversation), daemon=True).start()
            except RuntimeError:
                log.warning("connection from %s closed: there is no thread for it", address)
                self._places.give_back(conversation)
                connection.close()

    def _admits(self, address: str, conversation: _Conversation) -> bool:
        if not self._allows(address):
            log.warning("connection from %s closed: not permitted", address)
            self._turned_away(address, "address", "the address is not among listener.addresses")
        elif not self._places.take(conversation):
            log.warning("connection from %s closed: too many at once", address)
            self._turned_away(address, "limit", "too many connections at once")
        else:
            return True
        return False

    def _serve(self, connection: socket.socket, conversation: _Conversation) -> None:
        address = conversation.address
        try:
            conversation.run(self._stopping)
        except (OSError, h11.ProtocolError):
            log.debug("connection from %s ended", address)
        except Exception as error:  # noqa: BLE001 -- the last frame of this thread
            log.error("connection from %s ended: %s", address, type(error).__name__)  # noqa: TRY400
        finally:
            self._places.give_back(conversation)
            connection.close()


class _TooSlowError(TimeoutError):
    """The body of a request fell silent, or came below the pace for too long."""


class _Conversation:
    """One connection: requests in turn."""

    def __init__(self, wire: Wire, address: str, service: WebService, limits: WebLimits) -> None:
        self.address = address
        self._wire = wire
        self._service = service
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAXIMUM_HEADER_BYTES)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._patiences = limits.for_head()
        self._waits_since = float("inf")

    @property
    def kept_waiting_s(self) -> float:
        """For how long the peer has kept us waiting, less what it earned back by its pace."""
        return max(patience.used_s for patience in self._patiences) + max(0.0, time.monotonic() - self._waits_since)

    def abort(self) -> None:
        """End it from another thread."""
        self._wire.abort()

    def run(self, stopping: threading.Event) -> None:
        """Serve until one side has enough."""
        while not stopping.is_set():
            self._patiences = self._limits.for_head()
            try:
                event = self._next()
            except h11.RemoteProtocolError as error:
                self._send(WebAnswer(status=error.error_status_hint, content=b"this is no HTTP request\n"), close=True)
                return
            if not isinstance(event, h11.Request):
                return
            try:
                self._answer(event)
            except h11.RemoteProtocolError as error:
                self._send(WebAnswer(status=error.error_status_hint, content=b"the body is none\n"), close=True)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                self._wire.finish()
                return
            self._http.start_next_cycle()

    def _answer(self, event: h11.Request) -> None:
        request = WebRequest(
            method=event.method.decode("ascii"),
            path=event.target.decode("latin-1").partition("?")[0],
            headers={name.decode("latin-1").lower(): text.decode("latin-1") for name, text in event.headers},
            address=self.address,
        )
        if {"content-length", "transfer-encoding"} <= request.headers.keys():
            # A proxy before us may go by the other one, and take what follows for another client's (RFC 9112 6.1).
            self._send(WebAnswer(status=400, content=b"both Content-Length and Transfer-Encoding\n"), close=True)
            return
        self._patiences = self._limits.for_body()
        try:
            answer = self._service.answer(request, self._body())
        except _TooSlowError:
            log.warning("a request from %s was too slow", self.address)
            self._send(WebAnswer(status=408, content=b"the body comes too slowly\n"), close=True)
            return
        except (OSError, h11.ProtocolError):
            raise
        except Exception as error:  # noqa: BLE001 -- the client must hear that it failed
            log.error("a request could not be answered: %s", type(error).__name__)  # noqa: TRY400
            answer = WebAnswer(status=500, content=b"internal failure\n")
        # Nobody waits for what is left of a body, or sends a "100 Continue" for it: it may never come.
        complete = self._http.their_state is h11.DONE or isinstance(self._http.next_event(), h11.EndOfMessage)
        self._send(answer, close=not complete)

    def _body(self) -> Iterator[bytes]:
        while True:
            if self._http.they_are_waiting_for_100_continue:
                self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
            try:
                event = self._next()
            except TimeoutError:
                raise _TooSlowError from None
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise ConnectionResetError

    def _next(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if not isinstance(event, type) or event is h11.PAUSED:
                return event
            self._waits_since = time.monotonic()
            count = self._wire.receive_into(self._buffer, *self._patiences)
            self._waits_since = float("inf")
            self._http.receive_data(bytes(self._buffer[:count]))

    def _send(self, answer: WebAnswer, *, close: bool) -> None:
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.content))),
            ("Cache-Control", "no-store"),
            *answer.headers.items(),
        ]
        if close:
            headers.append(("Connection", "close"))
        with contextlib.suppress(h11.LocalProtocolError):
            self._write(self._http.send(h11.Response(status_code=answer.status, headers=headers)))
            self._write(self._http.send(h11.Data(data=answer.content)))
            self._write(self._http.send(h11.EndOfMessage()))

    def _write(self, data: bytes | None) -> None:
        if data:
            self._wire.send(data, timeout_s=_SEND_S)
