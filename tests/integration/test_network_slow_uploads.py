"""Clients of STOW-RS that send as slowly as they can, and what others notice of them."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from dicom_nodes.listener import run_listener
from dicom_nodes.web_places import WebLimits
from service.settings import load_settings
from tests.stow_entrance import TYPE, entrance, image, multipart
from tests.waiting import comes_true
from workers.sandbox import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
"""Two peers: every address of 127.0.0.0/8 is ours to send from."""
HEAD = f"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE['Content-Type']}\r\nContent-Length: 99999999\r\n\r\n"
NEVER_SLOW = WebLimits(connections=4, connections_per_address=2, minimum_bytes_per_s=10.0)


class Trickle:
    """A request whose body comes at a steady pace, in a thread of its own."""

    def __init__(self, port: int, *, bytes_per_s: int, source: str = HERE) -> None:
        self.answer = b""
        self._ended = threading.Event()
        self._piece = b"\r\n" + b"x" * (bytes_per_s // 20 - 2)
        self._connection = socket.create_connection((HERE, port), source_address=(source, 0))
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    @property
    def holds(self) -> bool:
        """Whether the server still takes what it sends."""
        return self._thread.is_alive()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _send(self) -> None:
        self._connection.settimeout(10.0)
        with contextlib.suppress(OSError):
            self._connection.sendall(HEAD.encode())
            while not self._ended.wait(0.05):
                self._connection.sendall(self._piece)
                self._connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    self.answer += self._connection.recv(1000)
                    return
                self._connection.settimeout(10.0)


@contextlib.contextmanager
def trickling(port: int, count: int, *, bytes_per_s: int, source: str = HERE) -> Iterator[list[Trickle]]:
    """Run so many of them at once, begun one after the other."""
    clients: list[Trickle] = []
    try:
        for _ in range(count):
            clients.append(Trickle(port, bytes_per_s=bytes_per_s, source=source))
            time.sleep(0.1)
        yield clients
    finally:
        for client in clients:
            client.close()


def post(port: int, body: bytes, *, source: str) -> int | None:
    """Store, from an address; None where the server hangs up."""
    client = http.client.HTTPConnection(HERE, port, timeout=20, source_address=(source, 0))
    try:
        client.request("POST", "/studies", body, TYPE)
        return client.getresponse().status
    except OSError:
        return None
    finally:
        client.close()


def test_one_address_cannot_take_all_places(tmp_path: Path) -> None:
    with entrance(tmp_path, web=NEVER_SLOW) as door, trickling(door.server.port, 8, bytes_per_s=1000) as clients:
        assert comes_true(lambda: sum(client.holds for client in clients) == 2, 5)
        for number in range(10):
            body = multipart(image(tmp_path, f"1.2.3.{number}"))
            assert post(door.server.port, body, source=ELSEWHERE) == 200
            # The peer that trickles has had its share, and steady connections make no room.
            assert post(door.server.port, body, source=HERE) is None
        assert [client.holds for client in clients] == [True, True, *[False] * 6]


def test_connections_of_one_address_make_room_for_itself_and_no_other(tmp_path: Path) -> None:
    limits = WebLimits(connections=4, connections_per_address=2)
    with (
        entrance(tmp_path, web=limits) as door,
        trickling(door.server.port, 2, bytes_per_s=1000, source=ELSEWHERE) as others,
        trickling(door.server.port, 2, bytes_per_s=1000) as own,
    ):
        time.sleep(4.5)  # by now all of them have kept us waiting for three seconds
        body = multipart(image(tmp_path, "1.2.3.4"))
        assert post(door.server.port, body, source=HERE) == 200
        assert comes_true(lambda: sum(client.holds for client in own) == 1, 5)
        assert all(client.holds for client in others)


def test_a_steady_trickle_below_the_pace_makes_room_before_its_time_is_over(tmp_path: Path) -> None:
    limits = WebLimits(connections=2, connections_per_address=2, slow_timeout_s=600.0)
    with entrance(tmp_path, web=limits) as door, trickling(door.server.port, 2, bytes_per_s=1200) as clients:
        body = multipart(image(tmp_path, "1.2.3.4"))
        assert post(door.server.port, body, source=ELSEWHERE) is None
        assert comes_true(lambda: post(door.server.port, body, source=ELSEWHERE) == 200, 10)
        assert comes_true(lambda: sum(client.holds for client in clients) == 1, 5)


def test_a_request_below_the_pace_for_too_long_is_told_so_and_leaves_nothing(tmp_path: Path) -> None:
    limits = WebLimits(connections=2, connections_per_address=2, minimum_bytes_per_s=8000.0, slow_timeout_s=2.0)
    with entrance(tmp_path, web=limits) as door, trickling(door.server.port, 2, bytes_per_s=1200) as clients:
        begun = time.monotonic()
        assert comes_true(lambda: not any(client.holds for client in clients), 10)
        assert time.monotonic() - begun > 1.5
        assert [client.answer[:12] for client in clients] == [b"HTTP/1.1 408"] * 2
        body = multipart(image(tmp_path, "1.2.3.4"))
        # What it goes on sending is read for two more seconds, so that it gets to read why.
        assert comes_true(lambda: post(door.server.port, body, source=HERE) == 200, 5)
        assert len(door.files()) == 1


def test_a_slow_client_that_keeps_the_pace_is_served_for_as_long_as_it_takes(tmp_path: Path) -> None:
    limits = WebLimits(minimum_bytes_per_s=8000.0, slow_timeout_s=1.0)
    body = multipart(image(tmp_path, "1.2.3.4", rows=3000))
    assert len(body) > 80_000
    with entrance(tmp_path, web=limits) as door, socket.create_connection((HERE, door.server.port)) as client:
        client.settimeout(20)
        client.sendall(HEAD.replace("99999999", str(len(body))).encode())
        begun = time.monotonic()
        for start in range(0, len(body), 1200):
            client.sendall(body[start : start + 1200])
            time.sleep(0.05)
        assert time.monotonic() - begun > 3.0
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert len(door.files()) == 1


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Run a listener as a site would, with short settings; give its ports of STOW-RS and of health."""
    web, health = free_port(), free_port()
    changes = {
        "STATE__DIRECTORY": f'"{tmp_path / "state"}"',
        "LISTENER__PORT": str(free_port()),
        "LISTENER__MINIMUM_FREE_MB": "0",
        "LISTENER__ADDRESSES": f'["{HERE}", "{ELSEWHERE}"]',
        "HTTP__LISTENER_PORT": str(health),
        "DICOMWEB__PORT": str(web),
        "DICOMWEB__MAXIMUM_CONNECTIONS": "4",
        "DICOMWEB__MAXIMUM_CONNECTIONS_PER_ADDRESS": "3",
        "DICOMWEB__MINIMUM_BYTES_PER_S": "4000.0",
        "DICOMWEB__SLOW_TIMEOUT_S": "4.0",
    }
    settings = load_settings(None, {f"PELLUCID__{name}": value for name, value in changes.items()})
    stop = threading.Event()
    thread = threading.Thread(target=run_listener, args=(settings, stop))
    thread.start()
    try:
        assert comes_true(lambda: _is_open(web) and _is_open(health), 20)
        yield web, health
    finally:
        stop.set()
        thread.join(60)


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HERE, port), timeout=1):
        return True
    return False


def test_while_one_peer_trickles_a_listener_serves_others_and_says_that_it_is_well(
    listening: tuple[int, int], tmp_path: Path
) -> None:
    web, health = listening
    with trickling(web, 8, bytes_per_s=1000) as clients:
        held = [sum(client.holds for client in clients)]
        for number in range(20):
            body = multipart(image(tmp_path, f"1.2.3.{number}"))
            assert post(web, body, source=ELSEWHERE) == 200
            for path in ("live", "ready"):
                with urllib.request.urlopen(f"http://{HERE}:{health}/health/{path}", timeout=5) as answer:
                    assert answer.status == 200
            held.append(sum(client.holds for client in clients))
            time.sleep(0.3)
        assert 0 < max(held) <= 3
        # Those with a place were told that they are too slow: 4 s at a quarter of the pace.
        assert comes_true(lambda: not any(client.holds for client in clients), 5)
        assert sum(client.answer.startswith(b"HTTP/1.1 408") for client in clients) == 3
