"""An S3-compatible server on loopback: moto's, which keeps objects in memory, made to compare checksums as S3 does.

Everything that a real store may do to us happens here on request: it goes away, is slow, refuses, loses, alters.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from service.sections import Spool
from workers.sandbox import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from certificates import Pair

ACCOUNT = "123456789012"
PREFIX = "site-a"


class _Quiet(WSGIRequestHandler):
    def log(self, *arguments: Any, **named: Any) -> None:
        """Say nothing."""


class Server:
    """Serves all buckets; it can be stopped, and started again at the same port."""

    def __init__(self, pair: Pair | None = None) -> None:
        """With a certificate it speaks TLS."""
        self._tls = (str(pair.certificate), str(pair.key)) if pair else None
        self.port = 0
        self.buckets: dict[str, Bucket] = {}
        self._server: Any = None

    def start(self) -> None:
        """Listen; while somebody else happens to have the port, wait for it."""
        if not self.port:
            self.port = free_port()
        wait_until(self._bound, timeout_s=60.0, what="the port stays taken")
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _bound(self) -> bool:
        try:
            # A socket of ours: where werkzeug itself cannot bind, it ends the process.
            listening = socket.create_server(("127.0.0.1", self.port), backlog=50)
        except OSError:
            return False
        with listening:
            self._server = make_server(
                "127.0.0.1",
                self.port,
                self._serve,
                threaded=True,
                request_handler=_Quiet,
                ssl_context=self._tls,
                fd=listening.fileno(),
            )
        self._server.daemon_threads = True
        return True

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = environ["PATH_INFO"].split("/")[1]
        return self.buckets[name].serve(environ, start_response)


@dataclass(kw_only=True, eq=False)
class Bucket:
    """A bucket, and what shall befall it."""

    server: Server
    name: str = field(default_factory=lambda: f"spool-{uuid.uuid4().hex[:12]}")
    refusal: tuple[int, str] | None = None
    """Status and code that every request is answered with."""
    alter: bool = False
    """One byte of what is sent is lost on its way to the store."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of what was asked."""

    def __post_init__(self) -> None:
        self._backend.create_bucket(self.name, "us-east-1")
        self.server.buckets[self.name] = self

    def section(self, **changes: Any) -> Spool:
        """Return the settings' section."""
        values = {
            "url": f"s3://{self.name}/{PREFIX}",
            "endpoint_url": f"http://127.0.0.1:{self.server.port}",
            "access_key_id": "key",
            "secret_access_key": "secret",
            "timeout_s": 5.0,
        }
        return Spool(**{**values, **changes})

    def variables(self) -> dict[str, str]:
        """Return the settings as environment variables."""
        section = self.section().model_dump()
        return {f"PELLUCID__SPOOL__{key.upper()}": str(value) for key, value in section.items() if value}

    @property
    def objects(self) -> dict[str, Any]:
        """What the store keeps, by key."""
        return dict(self._backend.buckets[self.name].keys.items())

    def lose(self, key: str) -> None:
        """Lose an object."""
        self._backend.delete_object(self.name, key)

    def replace(self, key: str, data: bytes) -> None:
        """Put other bytes in an object's place."""
        self._backend.put_object(self.name, key, data)

    def age(self, seconds: float) -> None:
        """Make every object older."""
        for entry in self.objects.values():
            entry.last_modified -= timedelta(seconds=seconds)

    @property
    def _backend(self) -> Any:
        return s3_backends[ACCOUNT]["aws"]

    def serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = {key[5:].lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], headers))
        if self.refusal:
            return _answer(start_response, *self.refusal)
        if self.alter and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        digest = hashlib.sha256(body)
        if headers.get("x_amz_content_sha256") not in (None, digest.hexdigest()):
            return _answer(start_response, 400, "XAmzContentSHA256Mismatch")
        if headers.get("x_amz_checksum_sha256") not in (None, base64.b64encode(digest.digest()).decode()):
            return _answer(start_response, 400, "BadDigest")
        environ["wsgi.input"] = BytesIO(body)
        answered: Iterable[bytes] = _APPLICATION(environ, start_response)
        return answered


_APPLICATION = DomainDispatcherApplication(create_backend_app)


def _answer(start_response: Callable[..., Any], status: int, code: str) -> list[bytes]:
    body = f"<Error><Code>{code}</Code><Message>Erika Mustermann</Message></Error>".encode()
    start_response(f"{status} no", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def files(folder: Path) -> list[Path]:
    """Everything that lies in a folder, however deep."""
    return [path for path in folder.rglob("*") if path.is_file()]
