from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from xml.etree.ElementTree import fromstring

import pytest
from certificates import Authority
from waiting import comes_true

from service.audit.chain import AuditLog, Entry, read_place
from service.audit.syslog import Forwarder, start_forwarding
from service.audit.trail import Trail
from service.errors import SettingsError
from service.sections import Audit
from service.settings import load_settings
from service.tls import server_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from certificates import Pair

HEADER = re.compile(
    rb'<85>1 \d{4}-\d\d-\d\dT\S+ \S+ pellucid \d+ DICOM\+RFC3881 \[chain@32473 number="(\d+)" hash="([0-9a-f]{64})"\] '
)


class Collector:
    """A syslog server by RFC 5425, as much of it as a test needs."""

    def __init__(self, authority: Authority, own: Pair, port: int = 0) -> None:
        self._context = server_context(certificate=str(own.certificate), key=str(own.key), trusted=str(authority.path))
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.messages: list[bytes] = []
        self.arrived = threading.Condition()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait_for(self, count: int) -> list[bytes]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.messages) >= count, timeout=30)
            return list(self.messages)

    def stop(self) -> None:
        if self._connection:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    self._connection = connection
                    self._read(connection.makefile("rb"))
            except OSError:
                plain.close()

    def _read(self, stream: object) -> None:
        while True:
            count = b""
            while not count.endswith(b" "):
                byte = stream.read(1)
                if not byte:
                    return
                count += byte
            message = stream.read(int(count))
            with self.arrived:
                self.messages.append(message)
                self.arrived.notify_all()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
def collector(authority: Authority) -> Iterator[Collector]:
    collector = Collector(authority, authority.issue("collector"))
    yield collector
    collector.stop()


def forwarder(log: AuditLog, authority: Authority, own: Pair, port: int, *, host: str = "127.0.0.1") -> Forwarder:
    return Forwarder(
        log,
        Audit(
            syslog_host=host,
            syslog_port=port,
            syslog_trusted=str(authority.path),
            syslog_certificate=str(own.certificate),
            syslog_key=str(own.key),
        ),
    )


def test_records_arrive_once_in_order_with_their_hashes(
    tmp_path: Path, authority: Authority, collector: Collector
) -> None:
    log = AuditLog(tmp_path / "audit")
    trail = Trail(log, process="test")
    with trail.application():
        trail.alert("10.0.0.1", "unknown AE title: Müller")
    sending = forwarder(log, authority, authority.issue("pellucid"), collector.port)
    assert sending.run_once() == 3
    assert sending.run_once() == 0
    trail.purged("instances", {"count": "1"})
    assert sending.run_once() == 1
    messages = collector.wait_for(4)
    sending.close()
    records = [record for record, _ in log.records()]
    for message, record in zip(messages, records, strict=True):
        header = HEADER.match(message)
        assert header is not None
        assert header.groups() == (str(record.number).encode(), record.hash.encode())
        body = message[header.end() :]
        assert body.startswith(b"\xef\xbb\xbf")
        assert fromstring(body[3:].decode()).tag == "AuditMessage"


def test_a_collector_that_is_down_loses_nothing(tmp_path: Path, authority: Authority) -> None:
    log = AuditLog(tmp_path / "audit")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    sending = forwarder(log, authority, authority.issue("pellucid"), port)
    Trail(log, process="test").alert("10.0.0.1", "first")
    with pytest.raises(OSError, match=r"."):
        sending.run_once()
    Trail(log, process="test").alert("10.0.0.1", "second")
    collector = Collector(authority, authority.issue("collector"), port)
    try:
        assert sending.run_once() == 2
        assert len(collector.wait_for(2)) == 2
    finally:
        sending.close()
        collector.stop()


def test_a_collector_that_was_restarted_gets_what_came_meanwhile(tmp_path: Path, authority: Authority) -> None:
    log = AuditLog(tmp_path / "audit")
    own = authority.issue("collector")
    collector = Collector(authority, own)
    sending = forwarder(log, authority, authority.issue("pellucid"), collector.port)
    Trail(log, process="test").alert("10.0.0.1", "first")
    assert sending.run_once() == 1
    collector.wait_for(1)
    collector.stop()
    Trail(log, process="test").alert("10.0.0.1", "second")
    with pytest.raises(OSError, match=r"."):
        sending.run_once()
    collector = Collector(authority, own, collector.port)
    try:
        assert sending.run_once() == 1
        assert b'number="2"' in collector.wait_for(1)[0]
    finally:
        sending.close()
        collector.stop()


def test_a_collector_with_another_authority_hears_nothing(
    tmp_path: Path, authority: Authority, collector: Collector
) -> None:
    log = AuditLog(tmp_path / "audit")
    Trail(log, process="test").alert("10.0.0.1", "first")
    other = Authority(tmp_path / "other", "Somebody else")
    sending = forwarder(log, other, other.issue("pellucid"), collector.port)
    with pytest.raises(OSError, match="certificate"):
        sending.run_once()
    assert collector.messages == []


def test_a_collector_whose_certificate_is_for_another_name_hears_nothing(
    tmp_path: Path, authority: Authority, collector: Collector
) -> None:
    log = AuditLog(tmp_path / "audit")
    Trail(log, process="test").alert("10.0.0.1", "first")
    # Another way to write the same address, which the certificate does not hold.
    sending = forwarder(log, authority, authority.issue("pellucid"), collector.port, host="127.1")
    with pytest.raises(OSError, match="Hostname mismatch"):
        sending.run_once()
    assert collector.messages == []


def test_many_records_go_in_batches_and_the_place_is_noted_behind_each(
    tmp_path: Path, authority: Authority, collector: Collector
) -> None:
    log = AuditLog(tmp_path / "audit")
    log._append_all([Entry(kind="test", message="<m/>", study="", job="", note="")] * 201)
    sending = forwarder(log, authority, authority.issue("pellucid"), collector.port)
    assert sending.run_once() == 200
    place = read_place(log.folder / "forwarded")
    assert place is not None
    assert place.number == 200
    assert sending.run_once() == 1
    assert len(collector.wait_for(201)) == 201
    sending.close()


def test_damaged_lines_are_passed_over_and_hold_up_nothing(
    tmp_path: Path, authority: Authority, collector: Collector
) -> None:
    log = AuditLog(tmp_path / "audit")
    log._append_all([Entry(kind="test", message=f"<m{number}/>", study="", job="", note="") for number in range(4)])
    (segment,) = log.segments()
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([b"garbage\n", lines[1], b"garbage\n", lines[3]]))
    sending = forwarder(log, authority, authority.issue("pellucid"), collector.port)
    assert sending.run_once() == 2
    assert sending.run_once() == 0
    assert ["<m1/>" in text or "<m3/>" in text for text in map(str, collector.wait_for(2))] == [True, True]
    sending.close()


def test_forwarding_outlasts_a_collector_that_is_down(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.audit.syslog._POLL_S", 0.02)
    log, own = AuditLog(tmp_path / "audit"), authority.issue("pellucid")
    Trail(log, process="test").alert("10.0.0.1", "first")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    stop = threading.Event()
    thread = threading.Thread(target=forwarder(log, authority, own, port).run, args=(stop,), daemon=True)
    thread.start()
    assert comes_true(lambda: "forwarded: ConnectionRefusedError" in caplog.text, within_s=30)
    collector = Collector(authority, authority.issue("collector"), port)
    try:
        collector.wait_for(1)
    finally:
        stop.set()
        thread.join(timeout=10)
        collector.stop()
    assert not thread.is_alive()


def test_forwarding_begins_where_a_collector_is_named(
    tmp_path: Path, authority: Authority, collector: Collector
) -> None:
    variables = {"PELLUCID__STATE__DIRECTORY": str(tmp_path), "PELLUCID__AUDIT__SYSLOG_TRUSTED": str(authority.path)}
    own, stop = authority.issue("pellucid"), threading.Event()
    assert start_forwarding(load_settings(None, variables), stop) is None
    variables |= {
        "PELLUCID__AUDIT__SYSLOG_HOST": "127.0.0.1",
        "PELLUCID__AUDIT__SYSLOG_PORT": str(collector.port),
        "PELLUCID__AUDIT__SYSLOG_CERTIFICATE": str(own.certificate),
        "PELLUCID__AUDIT__SYSLOG_KEY": str(own.key),
    }
    Trail(AuditLog(tmp_path / "audit"), process="test").alert("10.0.0.1", "first")
    thread = start_forwarding(load_settings(None, variables), stop)
    assert thread is not None
    assert len(collector.wait_for(1)) == 1
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    with pytest.raises(SettingsError, match="nowhere"):
        start_forwarding(load_settings(None, variables | {"PELLUCID__AUDIT__SYSLOG_TRUSTED": "/nowhere"}), stop)
