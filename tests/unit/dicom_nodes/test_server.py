from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

from dicom_nodes.budgets import HalfOpen, Limits
from dicom_nodes.contexts import MAXIMUM_CONTEXTS, proposals
from dicom_nodes.dimse import ProtocolError
from dicom_nodes.upper_layer import read_pdu

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def closed(end: socket.socket) -> bool:
    end.settimeout(0.2)
    try:
        return end.recv(1) == b""
    except TimeoutError:
        return False


def test_a_pdu_is_read_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(struct.pack(">BBL", 4, 0, 3) + b"abc")
    assert read_pdu(ours, {4: 3}, deadline=time.monotonic() + 1) == (4, bytearray(b"\x04\x00\x00\x00\x00\x03abc"))


@pytest.mark.parametrize(("kind", "length"), [(4, 0xFFFFFFFF), (4, 101), (9, 1), (0x47, 0x45542F20)])
def test_a_pdu_that_is_too_long_or_unknown_is_refused_by_its_header(
    kind: int, length: int, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    theirs.sendall(struct.pack(">BBL", kind, 0, length))
    with pytest.raises(ProtocolError):
        read_pdu(ours, {4: 100}, deadline=time.monotonic() + 1)


def test_a_peer_that_trickles_bytes_meets_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"\x04")
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        read_pdu(ours, {4: 100}, deadline=begun + 0.2)
    assert time.monotonic() - begun < 1


def test_an_address_with_too_many_half_open_connections_loses_its_oldest() -> None:
    half_open = HalfOpen(Limits(half_open_per_address=2))
    pairs = [socket.socketpair() for _ in range(4)]
    half_open.enter(pairs[0][0], "10.0.0.2")
    for ours, _ in pairs[1:]:
        half_open.enter(ours, "10.0.0.1")
    assert [closed(theirs) for _, theirs in pairs] == [False, True, False, False]
    assert len(half_open) == 3
    for pair in pairs:
        for end in pair:
            end.close()


def test_when_all_is_taken_the_greediest_address_pays() -> None:
    half_open = HalfOpen(Limits(half_open=3, half_open_per_address=3))
    pairs = [socket.socketpair() for _ in range(4)]
    for (ours, _), address in zip(pairs, ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3"], strict=True):
        half_open.enter(ours, address)
    assert [closed(theirs) for _, theirs in pairs] == [False, True, False, False]
    for pair in pairs:
        for end in pair:
            end.close()


def test_many_kinds_are_split_into_proposals_of_at_most_128_contexts() -> None:
    kinds = [(f"1.2.{index}", f"1.2.840.10008.1.2.{syntax}") for index in range(100) for syntax in (1, 2)]
    carried: set[tuple[str, str]] = set()
    for contexts, pairs in proposals(kinds):
        assert len(contexts) <= MAXIMUM_CONTEXTS
        carried |= pairs
    assert carried == set(kinds)
