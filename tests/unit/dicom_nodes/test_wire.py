from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from dicom_nodes.wire import Patience, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Wire(ours), theirs


def patient(seconds: float = 5.0) -> Patience:
    return Patience(seconds, bytes_per_s=1000.0)


def test_patience_is_used_up_by_waiting_and_earned_by_bytes() -> None:
    patience = patient(10.0)
    patience.waited(4.0)
    assert patience.left_s == 6.0
    patience.received(1000)
    assert patience.left_s == 7.0
    patience.received(1_000_000)
    assert patience.left_s == 10.0


def test_a_byte_now_and_then_earns_next_to_nothing() -> None:
    patience = patient(10.0)
    for _ in range(11):
        patience.waited(0.9)
        patience.received(1)
    assert patience.left_s < 0.2


def test_what_is_there_is_read_without_waiting(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    theirs.sendall(b"abc")
    buffer = bytearray(10)
    assert wire.receive_into(memoryview(buffer), patient()) == 3
    assert buffer[:3] == b"abc"


def test_silence_ends_with_the_shortest_patience(pair: tuple[Wire, socket.socket]) -> None:
    wire, _ = pair
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.receive_into(memoryview(bytearray(1)), patient(60.0), patient(0.1))
    assert time.monotonic() - begun < 30.0


def test_the_end_of_the_stream_is_no_byte(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    theirs.close()
    assert wire.receive_into(memoryview(bytearray(1)), patient()) == 0


def test_a_peer_that_takes_nothing_meets_the_timeout(pair: tuple[Wire, socket.socket]) -> None:
    wire, _ = pair
    with pytest.raises(TimeoutError):
        wire.send(bytes(50 << 20), timeout_s=0.2)


def test_much_is_sent_to_a_peer_that_reads(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    received = bytearray()

    def read() -> None:
        while block := theirs.recv(1 << 20):
            received.extend(block)

    reader = threading.Thread(target=read)
    reader.start()
    wire.send(bytes(range(256)) * 40_000, timeout_s=30.0)
    wire.abort()
    reader.join(timeout=30.0)
    assert bytes(received) == bytes(range(256)) * 40_000


def test_abort_from_another_thread_ends_a_wait(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    threading.Timer(0.1, lambda: wire.abort(b"bye")).start()
    assert wire.receive_into(memoryview(bytearray(1)), patient(30.0)) == 0
    assert theirs.recv(10) == b"bye"
