"""A STOW-RS server over a spool and a ledger of its own, and requests to it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from dicom_nodes.reception import Store
from dicom_nodes.stow import Door, StowService
from dicom_nodes.web_places import WebLimits
from dicom_nodes.web_server import WebServer
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.spool import Spool
from tests.network import cr_image, write_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOUNDARY = "cut-here"
TYPE = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
TYPE_LINE = f"Content-Type: {TYPE['Content-Type']}"


class Entrance:
    """A STOW-RS server over a spool and a ledger of its own."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.engine = open_database(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.arrivals = Arrivals(self.engine)
        self.spool = Spool(folder / "spool", minimum_free_bytes=limits.pop("minimum_free_bytes", 0))
        self.spool.prepare()
        store = Store(spool=self.spool, arrivals=self.arrivals, stored=lambda: None)
        allows = limits.pop("allows", lambda _address: True)
        web = limits.pop("web", WebLimits(connections=4, connections_per_address=4))
        door = Door(called=("PELLUCID", "OTHER"), default_called="PELLUCID", calling="STOW", **limits)
        self.turned_away: list[tuple[str, str]] = []
        service = StowService(store, door, self._hear)
        self.server = WebServer(service, host="127.0.0.1", port=0, limits=web, allows=allows, turned_away=self._hear)
        self.server.start()

    def _hear(self, address: str, kind: str, _reason: str) -> None:
        self.turned_away.append((address, kind))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/studies"

    def post(self, body: bytes, *, path: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
        address = f"http://127.0.0.1:{self.server.port}{path}" if path else self.url
        return httpx.post(address, content=body, headers={**TYPE, **(headers or {})}, trust_env=False, timeout=30)

    def files(self) -> list[Path]:
        return [path for path in self.spool.root.rglob("*") if path.is_file()]

    def close(self) -> None:
        self.server.stop(grace_s=1.0)
        self.engine.dispose()


@contextmanager
def entrance(folder: Path, **limits: Any) -> Iterator[Entrance]:
    door = Entrance(folder, **limits)
    try:
        yield door
    finally:
        door.close()


def multipart(*parts: bytes) -> bytes:
    head = f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part for part in parts) + f"\r\n--{BOUNDARY}--\r\n".encode()


def image(folder: Path, sop: str, **changes: str) -> bytes:
    return write_image(folder / f"{sop}.dcm", cr_image(sop, **changes)).read_bytes()


def references(response: httpx.Response, tag: str) -> list[str]:
    return [item["00081155"]["Value"][0] for item in response.json().get(tag, {}).get("Value", [])]
