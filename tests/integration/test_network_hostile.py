from __future__ import annotations

import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from dicom_nodes.budgets import Limits
from tests.network import (
    AE,
    CR,
    assert_serves,
    command_set,
    connect,
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
        assert comes_true(lambda: running.server.half_open == 0, 5.0)
        assert comes_true(lambda: threading.active_count() <= threads, 5.0)
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
        assert comes_true(lambda: listener.server.half_open == 0, 1.0)
    connection.close()
    assert_serves(listener)


def test_garbage_inside_an_association_ends_only_that_association(listener: Station) -> None:
    for garbage in (
        data_pdu(b"garbage!" * 4, 3),
        data_pdu(store_request(b"1.2.3"), 3, context=99),
        data_pdu(b"data set without a command", 2),
        struct.pack(">BBL", 4, 0, 6) + bytes(6),
        data_pdu(bytes(20000), 1),
        data_pdu(store_request(b"1.2.3", data_set=False), 3),
    ):
        connection = established(listener)
        connection.sendall(garbage)
        assert connection.recv(100)[:1] == b"\x07"
        connection.close()
    assert listener.files() == []
    assert_serves(listener)
    assert comes_true(lambda: listener.server.open_associations() == [], 5.0)


@pytest.mark.parametrize("goodbye", ["abort", "reset", "silence"])
def test_an_object_that_breaks_off_leaves_no_file(goodbye: str, listener: Station) -> None:
    connection = established(listener)
    connection.sendall(data_pdu(store_request(b"1.2.3"), 3))
    for _ in range(40):
        connection.sendall(data_pdu(bytes(16000), 0))
    assert comes_true(lambda: len(listener.files()) == 1, 2.0)
    if goodbye == "abort":
        connection.sendall(bytes.fromhex("07000000000400000000"))
    elif goodbye == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert comes_true(lambda: listener.files() == [], 8.0)
    assert comes_true(lambda: listener.server.open_associations() == [], 8.0)
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


def other_request(field: int, *, has_data: bool = False) -> bytes:
    return command_set(
        {
            0x0002: CR.encode() + b"\x00" * (len(CR) % 2),
            0x0100: struct.pack("<H", field),
            0x0110: struct.pack("<H", 7),
            0x0800: struct.pack("<H", 0 if has_data else 0x0101),
        }
    )


@pytest.mark.parametrize("field", [0x0010, 0x0020, 0x0021, 0x0110, 0x0120, 0x0130, 0x0150, 0x0042])
def test_an_operation_that_is_not_served_is_refused_and_the_association_goes_on(field: int, listener: Station) -> None:
    connection = established(listener)
    for has_data in (False, True):
        connection.sendall(data_pdu(other_request(field, has_data=has_data), 3))
        if has_data:
            connection.sendall(data_pdu(b"whatever", 2))
        assert status_of(receive_pdu(connection)) == 0x0211
    connection.sendall(data_pdu(other_request(0x0FFF), 3) + data_pdu(echo_request(), 3))
    assert status_of(receive_pdu(connection)) == 0x0000
    connection.close()


@pytest.mark.parametrize("field", [0x8001, 0x8030, 0xFFFF])
def test_a_response_that_nobody_asked_for_ends_the_association(field: int, listener: Station) -> None:
    connection = established(listener)
    connection.sendall(data_pdu(other_request(field), 3))
    assert connection.recv(100)[:1] == b"\x07"
    connection.close()
    assert_serves(listener)


def test_a_data_set_of_another_instance_or_class_than_the_request_is_refused(listener: Station) -> None:
    def data_set(sop_class: str, sop_instance: str) -> bytes:
        uids = (
            (0x0008, 0x0016, sop_class),
            (0x0008, 0x0018, sop_instance),
            (0x0020, 0x000D, "1.2"),
            (0x0020, 0x000E, "1.3"),
        )
        return b"".join(
            struct.pack("<HHI", group, element, len(uid) + len(uid) % 2) + uid.encode() + b"\x00" * (len(uid) % 2)
            for group, element, uid in uids
        )

    connection = established(listener)
    for content, status in (
        (data_set(CR, "1.2.4"), 0xC000),
        (data_set("1.2.840.10008.5.1.4.1.1.2", "1.2.3"), 0xA900),
        (data_set(CR, "1.2.3"), 0x0000),
    ):
        connection.sendall(data_pdu(store_request(b"1.2.3"), 3) + data_pdu(content, 2))
        assert status_of(receive_pdu(connection)) == status
    connection.close()
    assert len(listener.files()) == 1


def test_many_requests_for_association_of_the_longest_kind_are_all_answered(tmp_path: Path) -> None:
    syntaxes = bytes([0x40, 0, 0, 0]) * 16379
    application = bytes([0x10, 0, 0, 21]) + b"1.2.840.10008.3.1.1.1"
    flood = b"".join(bytes([0x20, 0, 0xFF, 0xF0, identifier, 0, 0, 0]) + syntaxes for identifier in (1, 3, 5))
    body = struct.pack(">HH16s16s32x", 1, 0, AE.ljust(16).encode(), b"FLOOD".ljust(16)) + application + flood
    # What they cost is held against processor time, which other work on the machine does not change.
    patient = Limits(association_timeout_s=60.0, network_timeout_s=60.0)
    with station(tmp_path, limits=patient) as running:
        begun = time.process_time()
        sockets = [connect(running) for _ in range(8)]
        for connection in sockets:
            connection.settimeout(60.0)
            connection.sendall(struct.pack(">BBL", 1, 0, len(body)) + body)
        for connection in sockets:
            assert receive_pdu(connection)[0] == 0x02
            connection.close()
        assert time.process_time() - begun < 4.0
        assert comes_true(lambda: running.server.open_associations() == [], 10.0)
        assert_serves(running)
