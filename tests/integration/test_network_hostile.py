from __future__ import annotations

import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from pynetdicom import build_context
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_nodes.client import echo
from dicom_nodes.server import Limits
from tests.network import AE, CR, station, store_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.network import Station


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Station]:
    with station(tmp_path) as running:
        yield running


def connect(running: Station) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.settimeout(8.0)
    return connection


def established(running: Station) -> socket.socket:
    """Negotiate one context (id 1) by hand and return the bare connection."""
    requests: list[bytes] = []
    entity = ApplicationEntity("TEST")
    with socket.create_server(("127.0.0.1", 0)) as decoy:
        thread = threading.Thread(
            target=entity.associate,
            args=("127.0.0.1", decoy.getsockname()[1], [build_context(CR)]),
            kwargs={"ae_title": AE},
        )
        thread.start()
        copied, _ = decoy.accept()
        requests.append(copied.recv(65536))
        copied.close()
        thread.join()
    A_ASSOCIATE_RQ().decode(requests[0])
    connection = connect(running)
    connection.sendall(requests[0])
    assert connection.recv(65536)[0] == 0x02
    return connection


def data_pdu(content: bytes, control: int, context: int = 1) -> bytes:
    value = struct.pack(">LBB", len(content) + 2, context, control) + content
    return struct.pack(">BBL", 4, 0, len(value)) + value


def status_of(answer: bytes) -> int:
    element = struct.pack("<HHI", 0, 0x0900, 2)
    position = answer.index(element) + len(element)
    return int.from_bytes(answer[position : position + 2], "little")


def wait_until(condition, within_s: float) -> bool:  # noqa: ANN001
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def echo_s(running: Station) -> float:
    begun = time.monotonic()
    echo("127.0.0.1", running.port, AE, "TEST")
    return time.monotonic() - begun


def assert_serves(running: Station) -> None:
    # On a machine that is busy with other things even the second echo takes long.
    first = echo_s(running)
    assert first < max(1.0, 4 * echo_s(running))


def test_two_hundred_silent_sockets_do_not_block_an_echo_and_are_reaped(tmp_path: Path) -> None:
    with station(tmp_path, limits=Limits(association_timeout_s=2.0)) as running:
        threads = threading.active_count()
        sockets = [connect(running) for _ in range(200)]
        for connection in sockets:
            connection.settimeout(0.5)
            try:
                connection.sendall(b"\x01\x00\x00\x00\x00\xff" + bytes(10))
            except OSError:
                continue  # the oldest of an address that takes too many are closed
        assert_serves(running)
        assert running.server.half_open <= 32
        assert wait_until(lambda: running.server.half_open == 0, 5.0)
        assert wait_until(lambda: threading.active_count() <= threads, 5.0)
        for connection in sockets:
            connection.close()


def test_a_pdu_length_of_four_gigabytes_takes_no_memory(listener: Station) -> None:
    before = psutil.Process().memory_info().rss
    for kind in (1, 4):
        connection = connect(listener)
        connection.sendall(struct.pack(">BBL", kind, 0, 0xFFFFFFFF))
        assert connection.recv(100)[0] == 0x07
        connection.close()
    connection = established(listener)
    connection.sendall(struct.pack(">BBL", 4, 0, 0xFFFFFFFF))
    assert connection.recv(100)[0] == 0x07
    connection.close()
    assert psutil.Process().memory_info().rss - before < 50 << 20
    assert_serves(listener)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x01\x00\x00\x00\x00\x08garbage!"])
def test_garbage_is_answered_with_an_abort_or_the_end(garbage: bytes, listener: Station) -> None:
    connection = connect(listener)
    connection.sendall(garbage)
    try:
        assert connection.recv(100)[:1] in (b"", b"\x07")
    except ConnectionResetError:
        assert wait_until(lambda: listener.server.half_open == 0, 1.0)
    connection.close()
    assert_serves(listener)


def test_garbage_inside_an_association_ends_only_that_association(listener: Station) -> None:
    for garbage in (
        data_pdu(b"garbage!" * 4, 3),
        data_pdu(store_request(b"1.2.3"), 3, context=99),
        data_pdu(b"data set without a command", 2),
        struct.pack(">BBL", 4, 0, 6) + bytes(6),
        data_pdu(bytes(20000), 1),
    ):
        connection = established(listener)
        connection.sendall(garbage)
        assert connection.recv(100)[:1] == b"\x07"
        connection.close()
    assert_serves(listener)
    assert wait_until(lambda: listener.server.open_associations() == [], 5.0)


@pytest.mark.parametrize("goodbye", ["abort", "reset", "silence"])
def test_an_object_that_breaks_off_leaves_no_file(goodbye: str, listener: Station) -> None:
    connection = established(listener)
    connection.sendall(data_pdu(store_request(b"1.2.3"), 3))
    for _ in range(40):
        connection.sendall(data_pdu(bytes(16000), 0))
    assert wait_until(lambda: len(listener.files()) == 1, 2.0)
    if goodbye == "abort":
        connection.sendall(bytes.fromhex("07000000000400000000"))
    elif goodbye == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert wait_until(lambda: listener.files() == [], 8.0)
    assert wait_until(lambda: listener.server.open_associations() == [], 8.0)
    assert listener.arrivals.unassigned() == []
    connection.close()


@pytest.mark.parametrize("uid", [b"../../../../tmp/evil", b"", b"1." * 40 + b"1", b"1.2.3\\4", b"\xff\xfe"])
def test_a_malformed_uid_is_answered_and_never_becomes_a_path(uid: bytes, listener: Station, tmp_path: Path) -> None:
    connection = established(listener)
    connection.sendall(data_pdu(store_request(uid), 3) + data_pdu(bytes(1000), 2))
    assert status_of(connection.recv(1000)) == 0xC000
    connection.sendall(bytes.fromhex("05000000000400000000"))
    assert connection.recv(100)[0] == 0x06
    connection.close()
    assert listener.files() == []
    assert not list(tmp_path.rglob("*evil*"))


def test_a_class_that_was_not_negotiated_is_not_supported(listener: Station) -> None:
    connection = established(listener)
    other = b"1.2.840.10008.5.1.4.1.1.2"
    connection.sendall(data_pdu(store_request(b"1.2.3", other), 3) + data_pdu(bytes(1000), 2))
    assert status_of(connection.recv(1000)) == 0x0122
    connection.close()


def test_a_peer_that_sends_without_waiting_for_answers_is_aborted(listener: Station) -> None:
    connection = established(listener)
    message = data_pdu(store_request(b"1.2.3"), 3) + data_pdu(bytes(10), 2)
    answers = bytearray()
    try:
        connection.sendall(message * 2000)
        while block := connection.recv(65536):
            answers += block
    except OSError:
        answers += b"reset"
    connection.close()
    assert answers
    assert wait_until(lambda: listener.server.open_associations() == [], 5.0)
    assert_serves(listener)
