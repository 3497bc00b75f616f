from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_nodes.dimse import ProtocolError
from dicom_nodes.upper_layer import PduStream, Tolerance
from dicom_nodes.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

RELEASE = bytes.fromhex("05000000000400000000")
ABORTED = bytes.fromhex("07000000000400000000")


def pdu(*values: tuple[int, int, bytes]) -> bytes:
    body = b"".join(struct.pack(">LBB", len(data) + 2, context, control) + data for context, control, data in values)
    return struct.pack(">BBL", 4, 0, len(body)) + body


def received(parts: Sequence[bytes], *, maximum_pdu_bytes: int = 1 << 16) -> list[tuple[int, bool, bool, bytes]]:
    """Let a stream take what a peer sends and then closes; joins the pieces of one value."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for part in parts:
            theirs.sendall(part)
        theirs.shutdown(socket.SHUT_WR)
        tolerance = Tolerance(silence_s=5.0, half_pdu_s=5.0, bytes_per_s=1000.0)
        stream = PduStream(Wire(ours), maximum_pdu_bytes=maximum_pdu_bytes, tolerance=tolerance)
        return [(p.context_id, p.is_command, p.ends_message, bytes(p.data)) for p in stream.pieces()]


def test_values_come_out_as_they_were_sent_until_the_release() -> None:
    sent = pdu((1, 3, b"command")) + pdu((1, 0, b"abc"), (1, 2, b"def")) + RELEASE
    assert received([sent]) == [
        (1, True, True, b"command"),
        (1, False, False, b"abc"),
        (1, False, True, b"def"),
    ]


def test_fragments_that_are_here_together_come_as_one_piece() -> None:
    fragments = [pdu((1, 0, bytes([number]) * 99)) for number in range(50)]
    sent = b"".join(fragments) + pdu((1, 2, b"")) + pdu((1, 3, b"command")) + RELEASE
    assert received([sent]) == [
        (1, False, True, b"".join(bytes([number]) * 99 for number in range(50))),
        (1, True, True, b"command"),
    ]


def test_what_belongs_to_another_context_or_message_is_never_joined() -> None:
    sent = pdu((1, 0, b"a")) + pdu((3, 0, b"b")) + pdu((3, 1, b"c")) + pdu((3, 2, b"d")) + pdu((3, 2, b"e")) + RELEASE
    assert received([sent]) == [
        (1, False, False, b"a"),
        (3, False, False, b"b"),
        (3, True, False, b"c"),
        (3, False, True, b"d"),
        (3, False, True, b"e"),
    ]


@pytest.mark.parametrize("second", [struct.pack(">BBLLBB", 4, 0, 1 << 20, (1 << 20) - 4, 1, 0), pdu((1, 0, b"b"))[:-2]])
def test_a_fragment_that_is_too_long_or_cut_is_found_behind_another(second: bytes) -> None:
    with pytest.raises((ProtocolError, ConnectionResetError)):
        received([pdu((1, 0, b"a")) + second])


def test_values_larger_than_the_buffer_come_in_pieces() -> None:
    sent = bytes(range(256)) * 3000
    pieces = []
    for start in range(0, len(sent), 60000):
        pieces += received([pdu((1, 2, sent[start : start + 60000])) + RELEASE])
    assert b"".join(piece[3] for piece in pieces) == sent


@pytest.mark.parametrize(
    "hostile",
    [
        struct.pack(">BBL", 4, 0, 0xFFFFFFFF),
        struct.pack(">BBL", 4, 0, 1) + b"\x00",
        struct.pack(">BBLLBB", 4, 0, 6, 1, 1, 0),
        struct.pack(">BBLLBB", 4, 0, 6, 0, 1, 0),
        struct.pack(">BBLLBB", 4, 0, 6, 99, 1, 0),
        struct.pack(">BBL", 1, 0, 4) + bytes(4),
        struct.pack(">BBL", 0x47, 0, 4) + bytes(4),
        bytes.fromhex("06000000000400000000"),
    ],
)
def test_what_the_standard_does_not_allow_is_a_protocol_error(hostile: bytes) -> None:
    with pytest.raises(ProtocolError):
        received([hostile])


def test_an_abort_and_a_lost_connection_are_told_apart() -> None:
    with pytest.raises(ConnectionAbortedError):
        received([ABORTED])
    with pytest.raises(ConnectionResetError):
        received([pdu((1, 0, b"abc"))[:-1]])


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=300)), max_size=8), st.integers(1, 997))
def test_however_the_bytes_are_cut_the_message_is_the_same(values: list[tuple[int, bytes]], step: int) -> None:
    sent = b"".join(pdu((5, control, data)) for control, data in values) + RELEASE
    parts = [sent[start : start + step] for start in range(0, len(sent), step)]
    got = received(parts)
    assert b"".join(piece[3] for piece in got) == b"".join(data for _, data in values)
    assert sum(piece[2] for piece in got) == sum(bool(control & 2) for control, _ in values)
