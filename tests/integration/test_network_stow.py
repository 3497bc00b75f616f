"""The way in by STOW-RS, over real connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydicom import dcmread

from tests.archives import orthanc
from tests.network import CR
from tests.stow_entrance import TYPE, TYPE_LINE, Entrance, entrance, image, multipart, references
from tests.waiting import comes_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Entrance]:
    with entrance(tmp_path) as running:
        yield running


def test_every_instance_of_a_request_is_stored_as_c_store_would(door: Entrance, tmp_path: Path) -> None:
    parts = [image(tmp_path, f"1.2.3.{index}", rows=3000) for index in range(3)]
    response = door.post(multipart(*parts))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom+json"
    assert references(response, "00081199") == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    stored = door.arrivals.unassigned()
    assert {(entry.calling_ae, entry.called_ae, entry.address) for entry in stored} == {
        ("STOW", "PELLUCID", "127.0.0.1")
    }
    for entry in stored:
        assert dcmread(door.spool.root / "instances" / entry.key) == dcmread(tmp_path / f"{entry.sop_instance_uid}.dcm")
    # The request is over, so its studies wait for nothing but the quiet period.
    assert len(door.arrivals.complete_studies(quiet_period_s=0.0)) == 1


def test_a_repeated_instance_is_acknowledged_and_stored_once(door: Entrance, tmp_path: Path) -> None:
    part = image(tmp_path, "1.2.3.4")
    assert [door.post(multipart(part)).status_code for _ in range(2)] == [200, 200]
    assert len(door.files()) == 1


def test_a_part_that_is_no_instance_fails_by_itself(door: Entrance, tmp_path: Path) -> None:
    contradiction = image(tmp_path, "1.2.3.4").replace(CR.encode(), b"1.2.840.10008.5.1.4.1.1.2", 1)
    response = door.post(multipart(image(tmp_path, "1.2.3.5"), b"no DICOM", bytes(100_000), contradiction))
    assert response.status_code == 202
    assert references(response, "00081199") == ["1.2.3.5"]
    reasons = [item["00081197"]["Value"][0] for item in response.json()["00081198"]["Value"]]
    assert reasons == [0xC000, 0xC000, 0xA900]
    assert len(door.files()) == 1


def test_when_nothing_is_stored_the_request_fails(door: Entrance, tmp_path: Path) -> None:
    assert door.post(multipart(b"no DICOM")).status_code == 409
    assert door.post(multipart()).status_code == 400
    assert door.files() == []


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with entrance(tmp_path, minimum_free_bytes=1 << 60) as door:
        assert door.post(multipart(image(tmp_path, "1.2.3.4"))).status_code == 503


def test_a_client_that_may_not_is_told_so_before_it_sends_its_body(tmp_path: Path) -> None:
    with (
        entrance(tmp_path, token="secret") as door,  # noqa: S106 -- of this test
        socket.create_connection(("127.0.0.1", door.server.port)) as client,
    ):
        client.settimeout(20)
        client.sendall(f"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n{TYPE_LINE}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 401")


BODY_TO_COME = f"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n{TYPE_LINE}\r\n\r\n".encode()


@pytest.mark.parametrize("begun", [b"", b"POST /studies", BODY_TO_COME, BODY_TO_COME + b"--"])
def test_connections_that_keep_us_waiting_make_room_for_one_that_does_not(
    begun: bytes, door: Entrance, tmp_path: Path
) -> None:
    silent = [socket.create_connection(("127.0.0.1", door.server.port)) for _ in range(4)]
    for client in silent:
        client.sendall(begun)
    body = multipart(image(tmp_path, "1.2.3.4"))

    def stored() -> bool:
        try:
            return door.post(body).status_code == 200
        except httpx.TransportError:
            return False

    # The silent ones go by themselves after 10 and 30 seconds.
    assert comes_true(stored, 9)
    for client in silent:
        client.close()


def test_the_path_chooses_the_called_ae_title(door: Entrance, tmp_path: Path) -> None:
    body = multipart(image(tmp_path, "1.2.3.4"))
    assert door.post(body, path="/dicom-web/aets/OTHER/studies").status_code == 200
    assert door.arrivals.unassigned()[0].called_ae == "OTHER"
    assert door.post(body, path="/aets/NOBODY/studies").status_code == 404
    assert door.post(body, path="/../etc/passwd").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/dicom+json"}, 415),
        ({"Content-Type": "multipart/related; type=application/dicom"}, 400),
        ({"Content-Type": 'multipart/related; type="application/dicom+xml"; boundary=x'}, 415),
    ],
)
def test_other_content_is_refused(headers: dict[str, str], status: int, door: Entrance) -> None:
    assert door.post(b"", headers=headers).status_code == status
    assert httpx.get(door.url, trust_env=False).status_code == 405


def test_without_the_token_nothing_is_taken(tmp_path: Path) -> None:
    with entrance(tmp_path, token="sesame") as door:  # noqa: S106
        body = multipart(image(tmp_path, "1.2.3.4"))
        assert door.post(body).status_code == 401
        assert door.post(body, headers={"Authorization": "Bearer sesam"}).status_code == 401
        assert door.turned_away == [("127.0.0.1", "token")] * 2
        assert door.files() == []
        assert door.post(body, headers={"Authorization": "Bearer sesame"}).status_code == 200


def test_a_request_that_is_too_large_is_refused_said_or_not(tmp_path: Path) -> None:
    with entrance(tmp_path, maximum_bytes=100_000) as door:
        body = multipart(image(tmp_path, "1.2.3.4", rows=20_000))
        assert _status_despite_hanging_up(lambda: door.post(body)) in (413, None)

        def pieces() -> Iterator[bytes]:
            for start in range(0, len(body), 10_000):
                yield body[start : start + 10_000]

        post = lambda: httpx.post(door.url, content=pieces(), headers=TYPE, trust_env=False, timeout=30)  # noqa: E731
        assert _status_despite_hanging_up(post) in (413, None)
        assert comes_true(lambda: door.files() == [], 10)
        assert door.post(multipart(image(tmp_path, "1.2.3.5"))).status_code == 200


def _status_despite_hanging_up(post: Any) -> int | None:
    """A server that hangs up early may do so before the client has read why."""
    try:
        return int(post().status_code)
    except httpx.TransportError:
        return None


def test_chunks_are_taken_as_they_come(door: Entrance, tmp_path: Path) -> None:
    body = multipart(image(tmp_path, "1.2.3.4", rows=2000))
    pieces = (body[start : start + 777] for start in range(0, len(body), 777))
    assert httpx.post(door.url, content=pieces, headers=TYPE, trust_env=False, timeout=30).status_code == 200
    assert len(door.files()) == 1


@pytest.mark.parametrize("cut", [200, 3000])
def test_a_body_that_breaks_off_leaves_no_file(cut: int, door: Entrance, tmp_path: Path) -> None:
    body = multipart(image(tmp_path, "1.2.3.4", rows=2000))
    with socket.create_connection(("127.0.0.1", door.server.port)) as client:
        head = f"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE['Content-Type']}\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-cut])
        assert comes_true(lambda: len(door.files()) == 1, 10)
    assert comes_true(lambda: door.files() == [], 10)
    assert door.arrivals.unassigned() == []
    whole = door.post(body)
    assert whole.status_code == 200


def test_a_body_without_its_last_boundary_is_an_error(door: Entrance, tmp_path: Path) -> None:
    assert door.post(multipart(image(tmp_path, "1.2.3.4"))[:-10]).status_code == 400
    assert door.files() == []


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00hello", b"GET\r\n\r\n", b"A" * 100_000])
def test_garbage_is_answered_or_hung_up_on(garbage: bytes, door: Entrance, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", door.server.port)) as client:
        client.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            client.sendall(garbage + b"\r\n\r\n")
            assert client.recv(1000)[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")
    assert door.post(multipart(image(tmp_path, "1.2.3.4"))).status_code == 200


def test_idle_connections_do_not_keep_others_out_for_ever(door: Entrance, tmp_path: Path) -> None:
    idle = [socket.create_connection(("127.0.0.1", door.server.port)) for _ in range(4)]
    begun = time.monotonic()
    body = multipart(image(tmp_path, "1.2.3.4"))

    def served() -> bool:
        return _status_despite_hanging_up(lambda: door.post(body)) == 200

    assert comes_true(served, 40)
    assert time.monotonic() - begun < 40
    for connection in idle:
        connection.close()


def test_a_connection_for_which_there_is_no_thread_ends_and_later_ones_are_served(
    door: Entrance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, left = threading.Thread.start, [None] * 5

    def start_later(thread: threading.Thread) -> None:
        """Refuse, as the system does when a process has too many: once more than there may be connections."""
        if left and "_serve" in thread.name:
            left.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_later)
    while left:
        with pytest.raises(httpx.TransportError):
            door.post(b"")
    assert door.post(multipart(image(tmp_path, "1.2.3.4"))).status_code == 200


def test_orthanc_sends_to_us_by_stow(door: Entrance, tmp_path: Path) -> None:
    servers = {
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "Servers": {"us": [f"http://127.0.0.1:{door.server.port}/dicom-web/"]},
        }
    }
    with orthanc(tmp_path / "orthanc", extra=servers) as archive:
        answer = archive.get("/instances", image(tmp_path, "1.2.3.4", rows=500))
        sent = archive.get(
            "/dicom-web/servers/us/stow", f'{{"Resources": ["{answer["ID"]}"], "Synchronous": true}}'.encode()
        )
        assert sent is not None
    (stored,) = door.arrivals.unassigned()
    assert stored.sop_instance_uid == "1.2.3.4"


def test_an_instance_of_another_study_than_the_resource_is_refused(door: Entrance, tmp_path: Path) -> None:
    body = multipart(image(tmp_path, "1.2.3.4"), image(tmp_path, "1.2.3.5", study="1.2.9"))
    response = door.post(body, path="/studies/1.2.3")
    assert response.status_code == 202
    assert references(response, "00081199") == ["1.2.3.4"]
    assert references(response, "00081198") == ["1.2.3.5"]
    assert len(door.files()) == 1


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"zz\r\n"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"12345"),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nPOST /smuggled HTTP/1.1\r\n\r\n"),
        (b"Content-Length: -5\r\n", b""),
        (b"Content-Length: 99999999999999999999999999\r\n", b""),
        (b"X: \x00\r\n", b""),
        (b"X: " + b"a" * 1000000 + b"\r\n", b""),
    ],
)
def test_a_request_that_two_servers_could_read_in_two_ways_is_answered_once_and_ends(
    door: Entrance, headers: bytes, body: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", door.server.port)) as connection:
        connection.settimeout(20.0)
        kind = TYPE["Content-Type"].encode()
        head = b"POST /studies HTTP/1.1\r\nHost: x\r\nContent-Type: " + kind + b"\r\n" + headers + b"\r\n"
        answer = bytearray()
        try:
            connection.sendall(head + body)
            while block := connection.recv(65536):
                answer += block
        except ConnectionResetError:
            pass  # it had enough of a header before it was at its end
    assert answer.count(b"HTTP/1.1") <= 1
    assert not answer or answer[9:10] in b"45"
    assert door.files() == []


def test_an_address_that_is_not_permitted_is_turned_away_and_noted(tmp_path: Path) -> None:
    with entrance(tmp_path, allows=lambda _address: False) as door:
        with pytest.raises(httpx.HTTPError):
            door.post(multipart())
        assert door.turned_away == [("127.0.0.1", "address")]
