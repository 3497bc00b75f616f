"""Health and metrics over HTTP: `/health/live`, `/health/ready`, `/metrics`. No patient data, no password."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.errors import PellucidError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

STALLED_AFTER_S = 60.0
MAXIMUM_CONNECTIONS = 32


class Health:
    """Whether a process does what it is for.

    Alive: its main loop went round lately; when not, only a restart helps. Ready: everything that it needs
    answers; when not, work should go elsewhere, and a restart would help nobody.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], object]],
        *,
        stalled_after_s: float = STALLED_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the checks by name; one that fails raises."""
        self._checks = dict(checks)
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._beat_at = clock()

    def beat(self) -> None:
        """The main loop went round."""
        self._beat_at = self._clock()

    def live(self) -> dict[str, str]:
        """Return what is wrong, by name."""
        age = self._clock() - self._beat_at
        return {"loop": f"stands still for {age:.0f} s"} if age > self._stalled_after_s else {}

    def ready(self) -> dict[str, str]:
        """Return what is wrong, by name."""
        found = self.live()
        for name, check in self._checks.items():
            try:
                check()
            except Exception as error:  # noqa: BLE001 -- whatever is wrong, that is the answer
                found[name] = str(error) if isinstance(error, PellucidError) else type(error).__name__
        return found


class Endpoints:
    """The HTTP server of one process."""

    def __init__(self, health: Health, registry: CollectorRegistry, *, host: str, port: int) -> None:
        """Take the port; 0 takes a free one.

        Raises:
            SettingsError: somebody else has it, or the address is not ours.
        """
        try:
            self._server = _Server((host, port), health, registry)
        except OSError as error:
            raise SettingsError(f"[http]: cannot listen at {host}:{port}: {error.strerror}") from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.5,), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_health(health: Health, registry: CollectorRegistry, *, host: str, port: int) -> Endpoints | None:
    """Serve where a port is set; 0 is none."""
    if not port:
        return None
    endpoints = Endpoints(health, registry, host=host, port=port)
    log.info("health and metrics at http://%s:%d", host, endpoints.port)
    return endpoints


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], health: Health, registry: CollectorRegistry) -> None:
        self.health = health
        self.registry = registry
        self._lock = threading.Lock()
        self._open: dict[socket.socket, None] = {}
        super().__init__(address, _Handler)

    def process_request(self, request: socket.socket, client_address: Any) -> None:  # type: ignore[override]
        """Serve a connection; where there are too many, the oldest ends: those that trickle, not the next probe."""
        with self._lock:
            if len(self._open) >= MAXIMUM_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                # Its thread waits for more and sees the end.
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """Forget a connection and close it."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5.0
    server_version = "pellucid"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._reply(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
        elif path == "/health/live":
            self._health(self.server.health.live())
        elif path == "/health/ready":
            self._health(self.server.health.ready())
        else:
            self._reply(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/health/live /health/ready /metrics\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name in http.server
        """Probes come every few seconds; they are not logged."""

    def _health(self, wrong: dict[str, str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
        body = json.dumps({"ok": not wrong, "wrong": wrong}).encode() + b"\n"
        self._reply(status, "application/json", body)

    def _reply(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
