"""Peers that send or read as slowly as they can."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from dicom_nodes.budgets import Limits
from dicom_nodes.contexts import VERIFICATION
from tests.network import (
    assert_serves,
    association_request,
    data_pdu,
    echo_request,
    established,
    receive_pdu,
    station,
    status_of,
    store_request,
)
from tests.waiting import comes_true

if TYPE_CHECKING:
    from pathlib import Path

    from tests.network import Station


def test_a_peer_that_never_reads_its_answers_is_let_go(listener: Station) -> None:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", listener.port))
    connection.sendall(association_request(VERIFICATION))
    connection.settimeout(0.5)
    block = data_pdu(echo_request(), 3) * 100
    try:
        for _ in range(10_000):
            connection.sendall(block)
    except OSError:
        assert_serves(listener)
    assert comes_true(lambda: listener.server.open_associations() == [], 60.0)
    connection.close()


def test_half_a_pdu_that_trickles_is_reaped_in_time(tmp_path: Path) -> None:
    assert Limits().pdu_timeout_s <= 15.0
    with station(tmp_path, limits=Limits(pdu_timeout_s=1.0)) as running:
        connection = established(running)
        connection.sendall(data_pdu(store_request(b"1.2.3"), 3))
        half = data_pdu(bytes(16000), 0)
        begun = time.monotonic()
        ended = trickle(connection, [half[index : index + 1] for index in range(200)])
        assert ended
        assert time.monotonic() - begun < 10.0
        assert comes_true(lambda: running.server.open_associations() == [], 5.0)
        assert running.files() == []
        assert_serves(running)


def test_whole_pdus_that_trickle_for_ever_are_reaped(tmp_path: Path) -> None:
    limits = Limits(network_timeout_s=1.0, pdu_timeout_s=1.0)
    with station(tmp_path, limits=limits) as running:
        connection = established(running)
        connection.sendall(data_pdu(store_request(b"1.2.3"), 3))
        assert trickle(connection, [data_pdu(b"x", 0)] * 200)
        assert comes_true(lambda: running.server.open_associations() == [], 5.0)
        assert running.files() == []


def test_a_command_that_trickles_is_reaped(tmp_path: Path) -> None:
    with station(tmp_path, limits=Limits(network_timeout_s=1.0, pdu_timeout_s=1.0)) as running:
        connection = established(running)
        assert trickle(connection, [data_pdu(b"", 1)] * 200)
        assert comes_true(lambda: running.server.open_associations() == [], 5.0)


def test_a_slow_peer_that_keeps_a_steady_pace_is_served(tmp_path: Path) -> None:
    limits = Limits(network_timeout_s=1.0, pdu_timeout_s=1.0, minimum_bytes_per_s=20.0)
    with station(tmp_path, limits=limits) as running:
        connection = established(running)
        connection.sendall(data_pdu(store_request(b"1.2.3"), 3))
        assert not trickle(connection, [data_pdu(bytes(100), 0)] * 30)
        connection.sendall(data_pdu(b"", 2))
        assert status_of(receive_pdu(connection)) == 0xC000
        connection.close()


def trickle(connection: socket.socket, pieces: list[bytes]) -> bool:
    """Send a piece every tenth of a second; True when the peer has had enough."""
    connection.setblocking(False)
    try:
        for piece in pieces:
            connection.send(piece)
            time.sleep(0.1)
            try:
                if connection.recv(100)[:1] in (b"", b"\x07"):
                    return True
            except BlockingIOError:
                continue
    except OSError:
        return True
    finally:
        connection.settimeout(8.0)
    return False
