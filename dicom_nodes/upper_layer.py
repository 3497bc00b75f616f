"""The upper layer of one accepted connection (PS3.8): lengths are checked before memory is taken.

A data set is handed on as its bytes arrive, out of one buffer that is used again and again: however large PDUs
and objects are, an association takes the same memory. Fragments that are in the buffer together are handed on as one
piece: whatever the PDUs' length, a byte costs the same.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_nodes.dimse import ProtocolError
from dicom_nodes.wire import Patience

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from dicom_nodes.wire import Wire

ASSOCIATE_REQUEST, DATA, RELEASE_REQUEST, RELEASE_RESPONSE, ABORTED = 0x01, 0x04, 0x05, 0x06, 0x07
MAXIMUM_REQUEST_BYTES = 1 << 18
"""Of an A-ASSOCIATE-RQ; 128 contexts with 45 transfer syntaxes each take 200 KB."""
MAXIMUM_OTHER_BYTES = 1 << 12
"""Of release and abort, which have four bytes."""
PDU_SLACK_BYTES = 64
"""Senders disagree on whether the announced maximum counts the item headers."""
BUFFER_BYTES = 1 << 20
ABORT = bytes.fromhex("07000000000400000202")
"""A-ABORT by the service provider, unexpected PDU (PS3.8 section 9.3.8)."""
RELEASED = bytes.fromhex("06000000000400000000")
"""A-RELEASE-RP (PS3.8 section 9.3.7)."""
_PDU = struct.Struct(">BBL")
_VALUE = struct.Struct(">LBB")
_PDU_WITH_VALUE = struct.Struct(">BBLLBB")
_IS_COMMAND, _IS_LAST = 1, 2
"""Bits of the message control header (PS3.8 annex E.2)."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some bytes of a presentation data value (PS3.8 section 9.3.5.1)."""

    context_id: int
    is_command: bool
    ends_message: bool
    """True with the last bytes of the last fragment of a command or data set."""
    data: memoryview
    """Valid until the next piece is asked for."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How slow a peer may be."""

    silence_s: float
    """Between PDUs."""
    half_pdu_s: float
    """Inside one."""
    bytes_per_s: float
    """A peer that keeps this up is never too slow."""


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
        OSError: the deadline passed (TimeoutError) or the peer went away.
    """
    header = bytearray(_PDU.size)
    _fill(connection, memoryview(header), deadline=deadline)
    kind, _, length = _PDU.unpack(header)
    _check(kind, length, limits)
    data = header + bytearray(length)
    _fill(connection, memoryview(data)[_PDU.size :], deadline=deadline)
    return kind, data


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


def _check(kind: int, length: int, limits: dict[int, int]) -> None:
    if length > limits.get(kind, -1):
        raise ProtocolError(f"PDU of type {kind} with {length} bytes")


class PduStream:
    """What a peer sends on an established association, taken apart."""

    def __init__(self, wire: Wire, *, maximum_pdu_bytes: int, tolerance: Tolerance) -> None:
        self._wire = wire
        self._limits = dict.fromkeys((RELEASE_REQUEST, RELEASE_RESPONSE, ABORTED), MAXIMUM_OTHER_BYTES)
        self._limits[DATA] = maximum_pdu_bytes + PDU_SLACK_BYTES
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._begin = self._end = 0
        self._between_pdus = Patience(tolerance.silence_s, bytes_per_s=tolerance.bytes_per_s)
        self._inside_pdu = Patience(tolerance.half_pdu_s, bytes_per_s=tolerance.bytes_per_s)

    def message_is_complete(self) -> None:
        """The peer may take its time again."""
        self._between_pdus.renew()

    def pieces(self) -> Iterator[Piece]:
        """Iterate over the data that arrives, until the peer asks for release.

        Raises:
            ProtocolError: the peer breaks PS3.8: abort.
            ConnectionAbortedError: the peer aborted.
            TimeoutError: it is too slow.
            OSError: the connection ended.
        """
        while True:
            kind, _, length = _PDU.unpack(self._take(_PDU.size, starts_pdu=True))
            _check(kind, length, self._limits)
            if kind == DATA:
                yield from self._values(length)
                continue
            self._take(length)
            if kind == ABORTED:
                raise ConnectionAbortedError
            if kind == RELEASE_RESPONSE:
                raise ProtocolError("an A-RELEASE-RP that nobody asked for")
            return

    def _values(self, left: int) -> Iterator[Piece]:
        while left:
            if left < _VALUE.size:
                raise ProtocolError("a presentation data value without its header")
            length, context_id, control = _VALUE.unpack(self._take(_VALUE.size))
            if not 2 <= length <= left - 4:  # noqa: PLR2004 -- context and control header, PS3.8 table 9-23
                raise ProtocolError("a presentation data value longer than its PDU")
            left -= 4 + length
            rest = length - 2
            while True:
                start, end = self._some(rest)
                rest -= end - start
                if not rest and not left:
                    end, rest, control = self._join(end, context_id, control)
                yield Piece(
                    context_id=context_id,
                    is_command=bool(control & _IS_COMMAND),
                    ends_message=not rest and bool(control & _IS_LAST),
                    data=self._buffer[start:end],
                )
                if not rest:
                    break

    def _join(self, end: int, context_id: int, control: int) -> tuple[int, int, int]:
        """Move what is in the buffer of the following fragments up to the one that ends at `end`.

        Returns:
            Where the last one ends now, how many bytes of it are still to come, and its control header.
        """
        rest = 0
        while not rest and not control & _IS_LAST and self._end - self._begin >= _PDU_WITH_VALUE.size:
            kind, _, length, value, context, following = _PDU_WITH_VALUE.unpack_from(self._buffer, self._begin)
            same = (kind, context, following & _IS_COMMAND) == (DATA, context_id, control & _IS_COMMAND)
            if not same or not 2 <= value == length - 4 or length > self._limits[DATA]:  # noqa: PLR2004
                break
            self._inside_pdu.renew()
            start = self._begin + _PDU_WITH_VALUE.size
            count = min(value - 2, self._end - start)
            self._buffer[end : end + count] = self._buffer[start : start + count]
            self._begin = start + count
            end, rest, control = end + count, value - 2 - count, following
        return end, rest, control

    def _take(self, count: int, *, starts_pdu: bool = False) -> memoryview:
        """Return exactly so many bytes; few enough for the buffer."""
        if starts_pdu:
            self._inside_pdu.renew()
        while self._end - self._begin < count:
            self._receive(inside=not starts_pdu or self._end > self._begin)
        view = self._buffer[self._begin : self._begin + count]
        self._begin += count
        return view

    def _some(self, count: int) -> tuple[int, int]:
        """Take what is here, at most so many bytes; return where in the buffer it begins and ends."""
        if count and self._begin == self._end:
            self._receive(inside=True)
        start = self._begin
        self._begin += min(count, self._end - start)
        return start, self._begin

    def _receive(self, *, inside: bool) -> None:
        left = self._end - self._begin
        if self._begin:
            # What is left is part of a header: a few bytes.
            self._buffer[:left] = bytes(self._buffer[self._begin : self._end])
            self._begin, self._end = 0, left
        patiences = (self._between_pdus, self._inside_pdu) if inside else (self._between_pdus,)
        count = self._wire.receive_into(self._buffer[self._end :], *patiences)
        if not count:
            raise ConnectionResetError
        self._end += count
