"""The upper layer of one accepted connection (PS3.8): every length is checked before memory is taken.

pynetdicom's own reader trusts the length a peer writes, reads without a deadline, and polls a thousand times
a second. This one does none of that; its state machine stays pynetdicom's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association

log = logging.getLogger(__name__)

ASSOCIATE_REQUEST = 0x01
DATA = 0x04
MAXIMUM_REQUEST_BYTES = 1 << 20
"""Of an A-ASSOCIATE-RQ; 128 contexts with 45 transfer syntaxes each take 200 KB."""
MAXIMUM_OTHER_BYTES = 1 << 12
"""Of release and abort, which have four bytes."""
PDU_SLACK_BYTES = 64
"""Senders disagree on whether the announced maximum counts the item headers."""
ABORT = bytes.fromhex("07000000000400000202")
"""A-ABORT by the service provider, unexpected PDU (PS3.8 section 9.3.8)."""
_POLL_MS = 250
_QUICK_ACKNOWLEDGEMENT: int | None = getattr(socket, "TCP_QUICKACK", None)
_ENDING = frozenset({"Sta1", "Sta13"})
"""States of PS3.8 section 9.2 in which no answer can be sent."""


class ProtocolError(Exception):
    """The peer sent what PS3.7 or PS3.8 does not allow."""


def read_exactly(connection: socket.socket, count: int, *, deadline: float) -> bytearray:
    """Read `count` bytes before a deadline (of `time.monotonic`).

    Raises:
        OSError: the deadline passed (TimeoutError) or the peer went away.
    """
    data = bytearray(count)
    _fill(connection, memoryview(data), deadline=deadline)
    return data


def _fill(connection: socket.socket, view: memoryview, *, deadline: float) -> None:
    while view:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        received = connection.recv_into(view)
        if not received:
            raise ConnectionResetError
        view = view[received:]


def read_pdu(connection: socket.socket, limits: dict[int, int], *, deadline: float) -> tuple[int, bytearray]:
    """Read one PDU.

    Args:
        connection: the socket.
        limits: longest body of each PDU type that is allowed now.
        deadline: of `time.monotonic`, for the whole PDU: a peer that trickles bytes gains nothing.

    Returns:
        PDU type and the whole PDU, with its six bytes of header.

    Raises:
        ProtocolError: another type, or too long; nothing of the body was read.
        OSError: the deadline passed or the peer went away.
    """
    header = read_exactly(connection, 6, deadline=deadline)
    kind, _, length = struct.unpack(">BBL", header)
    if length > limits.get(kind, -1):
        raise ProtocolError(f"PDU of type {kind} with {length} bytes")
    data = bytearray(6 + length)
    data[:6] = header
    _fill(connection, memoryview(data)[6:], deadline=deadline)
    return kind, data


class DataPdu:
    """A P-DATA-TF PDU whose values are views of the received bytes."""

    def __init__(self, data: bytearray) -> None:
        self._values: list[tuple[int, memoryview]] = []
        view = memoryview(data)[6:]
        while view:
            if len(view) < 6:  # noqa: PLR2004 -- length, context, control header: PS3.8 table 9-23
                raise ProtocolError("a presentation data value without its header")
            length, context_id = struct.unpack_from(">LB", view)
            if not 2 <= length <= len(view) - 4:  # noqa: PLR2004
                raise ProtocolError("a presentation data value longer than its PDU")
            self._values.append((context_id, view[5 : 4 + length]))
            view = view[4 + length :]

    def to_primitive(self) -> P_DATA:
        """Return what the state machine hands to DIMSE."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.extend(self._values)
        return primitive


class WakingQueue(queue.Queue[Any]):
    """A queue that tells somebody when something was put into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item and wake the reader."""
        super().put(item, block, timeout)
        self._wake()


class ServedSocket(AssociationSocket):  # type: ignore[misc]  # pynetdicom is read as untyped
    """An accepted connection. Waiting for it ends at once when there is something to send."""

    def __init__(self, association: Association, connection: socket.socket, *, timeout_s: float) -> None:
        super().__init__(association, client_socket=connection)
        self._timeout_s = timeout_s
        self._waker, self._woken = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._woken, False)
        self._poll = select.poll()
        self._poll.register(self._waker, select.POLLIN)
        self._poll.register(connection, select.POLLIN)
        self._open = True
        self.broken = False
        """True after a protocol error: what else arrives is not looked at."""

    def wake(self) -> None:
        """End the wait in `ready`."""
        if self._open:
            try:
                os.write(self._woken, b"\x00")
            except BlockingIOError:
                return  # it is full of wake-up calls already

    def release(self) -> None:
        """Close everything; call it when no thread uses this any more."""
        self._open = False
        os.close(self._waker)
        os.close(self._woken)

    @property
    def ready(self) -> bool:
        """True when there is data to read; waits a little for it unless something else is to be done."""
        if self.socket is None or not self._is_connected or self.broken:
            return False
        if self.socket.fileno() < 0:
            self.event_queue.put("Evt17")
            return False
        events = self._poll.poll(0)
        if not events and self.event_queue.empty() and self.provider_queue.empty():
            self._acknowledge()
            events = self._poll.poll(_POLL_MS)
        if any(descriptor == self._waker for descriptor, _ in events):
            os.read(self._waker, 4096)
        return any(descriptor != self._waker for descriptor, _ in events)

    def _acknowledge(self) -> None:
        """Send the delayed acknowledgement: a sender that waits for it (Nagle) loses 40 ms with each object."""
        if _QUICK_ACKNOWLEDGEMENT is not None and self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACKNOWLEDGEMENT, 1)

    def read_pdu(self, limits: dict[int, int]) -> tuple[int, bytearray]:
        """Read one PDU; see `read_pdu`."""
        if self.socket is None:
            raise ConnectionResetError
        return read_pdu(self.socket, limits, deadline=time.monotonic() + self._timeout_s)

    def send(self, bytestream: bytes) -> None:
        """Send within the timeout; a connection that fails is closed by the state machine."""
        try:
            if self.socket is None:
                raise ConnectionResetError
            self.socket.settimeout(self._timeout_s)
            self.socket.sendall(bytestream)
        except OSError:
            self.event_queue.put("Evt17")


class ServedUpperLayer(DULServiceProvider):  # type: ignore[misc]  # pynetdicom is read as untyped
    """Reads PDUs within limits. The A-ASSOCIATE-RQ was read before the association was made."""

    def __init__(self, association: Association, *, maximum_pdu_bytes: int) -> None:
        super().__init__(association)
        self.daemon = True
        # Waiting is done where it ends early, in `ready`.
        self._run_loop_delay = 0.0
        self._limits = dict.fromkeys(range(1, 8), MAXIMUM_OTHER_BYTES)
        self._limits[DATA] = maximum_pdu_bytes + PDU_SLACK_BYTES
        self._request: bytearray | None = None

    def attach(self, connection: ServedSocket, request: bytearray) -> None:
        """Serve a connection whose A-ASSOCIATE-RQ is `request`."""
        self.socket = connection
        self._request = request
        self.to_provider_queue = WakingQueue(connection.wake)

    def run_reactor(self) -> None:
        """Run until the connection has ended; an event that the state machine does not know ends it too."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 -- the last frame of this thread
            log.warning("the upper layer of an association ended: %s", type(error).__name__)

    def _process_recv_primitive(self) -> bool:
        # What happened to the connection comes first: an answer that it overtakes has no receiver any more.
        if not self.event_queue.empty():
            return False
        if self.state_machine.current_state in _ENDING and not self.to_provider_queue.empty():
            first = self.to_provider_queue.queue[0]
            if isinstance(first, P_DATA):
                self.to_provider_queue.get()
                return False
        return bool(super()._process_recv_primitive())

    def _is_transport_event(self) -> bool:
        if self._request is not None:
            request, self._request = self._request, None
            self._decode(ASSOCIATE_REQUEST, request)
            return True
        happened = bool(super()._is_transport_event())
        # A data set comes in hundreds of PDUs: take them here rather than once a round of the state machine.
        while happened and self._only_data_is_expected() and self.socket.ready:
            self._read_pdu_data()
            self._idle_timer.restart()
        return happened

    def _only_data_is_expected(self) -> bool:
        return (
            self.state_machine.current_state == "Sta6"
            and not self._kill_thread
            and self.event_queue.empty()
            and self.to_provider_queue.empty()
        )

    def _read_pdu_data(self) -> None:
        assert isinstance(self.socket, ServedSocket)  # noqa: S101 -- `attach` put it there
        try:
            kind, data = self.socket.read_pdu(self._limits)
        except ProtocolError:
            self.violation()
        except OSError:
            self.event_queue.put("Evt17")
        else:
            self._decode(kind, data)

    def violation(self) -> None:
        """Abort: the peer does not keep to the protocol (PS3.8 section 9.2, event 19)."""
        if isinstance(self.socket, ServedSocket):
            self.socket.broken = True
        self.event_queue.put("Evt19")

    def _decode(self, kind: int, data: bytearray) -> None:
        try:
            if kind == DATA:
                pdu, event = DataPdu(data), "Evt10"
                if self._only_data_is_expected():
                    # Action DT-2 of PS3.8 section 9.2 without the queues: most of what arrives comes this way.
                    self.assoc.dimse.receive_primitive(pdu.to_primitive())
                    return
            else:
                pdu, event = self._decode_pdu(data)
        except Exception:  # noqa: BLE001 -- pynetdicom's decoders raise whatever garbage makes them raise
            self.violation()
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)
