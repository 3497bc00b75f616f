"""One origin for a viewer and an archive: static files, and everything under /dicom-web handed on to Orthanc."""

from __future__ import annotations

import http.client
import threading
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ARCHIVE = "/dicom-web"
_HANDED_ON = ("Accept", "Content-Type", "Range")
_HANDED_BACK = ("Content-Type", "Content-Range")


class Site:
    """Serves a folder on a free loopback port, and the archive's DICOMweb below the same address.

    `pages` replaces single files of the folder: by text, or by another file.
    """

    def __init__(self, folder: Path, *, archive_port: int, pages: Mapping[str, str | Path] | None = None) -> None:
        self._server = _Server(folder, archive_port, pages or {})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="site")
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, archive_port: int, pages: Mapping[str, str | Path]) -> None:
        self.folder, self.archive_port, self.pages = folder, archive_port, pages
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: Any) -> None:
        """A browser that closes a page hangs up in the middle of an answer."""


class _Handler(SimpleHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".wasm": "application/wasm",
        ".mjs": "text/javascript",
    }

    def __init__(self, request: Any, address: Any, server: _Server) -> None:
        super().__init__(request, address, server, directory=str(server.folder))

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(ARCHIVE):
            self._hand_on()
        elif path in self.server.pages:
            page = self.server.pages[path]
            content = page.encode() if isinstance(page, str) else page.read_bytes()
            self._answer(HTTPStatus.OK, {"Content-Type": self.guess_type(path)}, content)
        else:
            # The viewer is one page: an address that is no file is for its own router.
            if not (self.server.folder / path.lstrip("/")).is_file():
                self.path = "/index.html"
            super().do_GET()

    def do_POST(self) -> None:
        self._hand_on()

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.archive_port, timeout=60)
        # Orthanc writes the address that it was asked by into its links: it must be ours.
        headers = {"Host": self.headers["Host"]}
        headers |= {name: value for name in _HANDED_ON if (value := self.headers.get(name))}
        try:
            connection.request(self.command, self.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            kept = {name: value for name in _HANDED_BACK if (value := answer.getheader(name))}
            self._answer(answer.status, kept, answer.read())
        finally:
            connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        # Without these a browser withholds shared memory, and with it the viewer's workers.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        super().end_headers()

    def log_message(self, *_args: Any) -> None:
        """Keep the tests' output for the tests."""
