"""Forwards audit records by syslog over TLS (RFC 5424, RFC 5425; PS3.15 section A.7), each until it was sent."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from service.audit.chain import AuditLog, Place, Record, read_place, write_place
from service.audit.trail import open_log
from service.tls import client_context

if TYPE_CHECKING:
    from service.sections import Audit
    from service.settings import Settings

log = logging.getLogger(__name__)

_PRIORITY = 10 * 8 + 5
"""Facility 10 (security and authorisation), severity 5 (notice)."""
_MESSAGE_ID = "DICOM+RFC3881"
_BATCH = 200
_PATIENCE_S = 10.0
_POLL_S = 1.0
_LONGEST_PAUSE_S = 60.0


def frame(record: Record, *, host: str, process_id: int) -> bytes:
    """Write a record as a syslog message with its octet count (RFC 5425 section 4.3).

    Number and hash travel as structured data: a collector that keeps them can tell whether our log was cut.
    """
    data = f'[chain@32473 number="{record.number}" hash="{record.hash}"]'
    header = f"<{_PRIORITY}>1 {record.at} {host} pellucid {process_id} {_MESSAGE_ID} {data} "
    body = header.encode("ascii", "replace") + b"\xef\xbb\xbf" + record.message.encode()
    return f"{len(body)} ".encode() + body


class Forwarder:
    """Sends what is behind the cursor. One process at a time does it; a collector that is down loses nothing.

    Syslog knows no receipt: of a collector that crashes, what was on its way to it is missing there, and only there.
    """

    def __init__(self, audit_log: AuditLog, settings: Audit) -> None:
        self._log = audit_log
        self._settings = settings
        self._cursor = audit_log.folder / "forwarded"
        self._connection: ssl.SSLSocket | None = None

    def run(self, stop: threading.Event) -> None:
        """Forward until told to stop; after a failure with growing pauses."""
        pause = _POLL_S
        while not stop.is_set():
            try:
                sent = self.run_once()
                pause = 0.0 if sent == _BATCH else _POLL_S
            except OSError as error:
                log.warning("audit records could not be forwarded: %s", type(error).__name__)
                self.close()
                pause = min(_LONGEST_PAUSE_S, max(_POLL_S, 2 * pause))
            stop.wait(pause)
        self.close()

    def run_once(self) -> int:
        """Send up to one batch; return how many records were sent.

        Lines that are damaged are passed over: the collector sees the gap in the numbers, `verify` names the lines.

        Raises:
            OSError: the collector is out of reach; nothing is skipped.
        """
        place = read_place(self._cursor) or Place()
        sent = 0
        for record, behind in self._log.records(after=place, pass_damage=True):
            self._send(frame(record, host=socket.gethostname(), process_id=os.getpid()))
            place = behind
            sent += 1
            if sent == _BATCH:
                break
        if sent:
            write_place(self._cursor, place)
        return sent

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, message: bytes) -> None:
        if self._connection is not None and _has_ended(self._connection):
            self.close()
        if self._connection is None:
            self._connection = self._connect()
        self._connection.sendall(message)

    def _connect(self) -> ssl.SSLSocket:
        chosen = self._settings
        context = client_context(
            trusted=chosen.syslog_trusted, certificate=chosen.syslog_certificate, key=chosen.syslog_key
        )
        plain = socket.create_connection((chosen.syslog_host, chosen.syslog_port), timeout=_PATIENCE_S)
        try:
            return context.wrap_socket(plain, server_hostname=chosen.syslog_host)
        except BaseException:
            plain.close()
            raise


def _has_ended(connection: ssl.SSLSocket) -> bool:
    """Tell whether the collector closed its end: the next message would be taken by our system, and by nobody else."""
    connection.setblocking(False)
    try:
        return not connection.recv(1)
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_PATIENCE_S)


def start_forwarding(settings: Settings, stop: threading.Event) -> threading.Thread | None:
    """Forward in a thread of its own, where `audit.syslog_host` is set.

    Raises:
        SettingsError: certificate, key or trusted certificates cannot be used.
    """
    chosen = settings.audit
    if not chosen.syslog_host:
        return None
    client_context(trusted=chosen.syslog_trusted, certificate=chosen.syslog_certificate, key=chosen.syslog_key)
    forwarder = Forwarder(open_log(settings), chosen)
    thread = threading.Thread(target=forwarder.run, args=(stop,), name="syslog", daemon=True)
    thread.start()
    return thread
