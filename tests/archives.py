"""Real archives on free loopback ports, for tests of delivery and retrieval."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.require import require_tool
from workers.sandbox import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
DICOMWEB = "libOrthancDicomWeb.so"


class Orthanc:
    """A real Orthanc with DICOMweb."""

    def __init__(self, *, port: int, http_port: int) -> None:
        self.port = port
        self.http_port = http_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def get(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", body, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def uids(self) -> set[str]:
        """SOP Instance UIDs of everything it has."""
        return {entry["MainDicomTags"]["SOPInstanceUID"] for entry in self.get("/instances?expand")}

    def delete(self, path: str) -> None:
        address = f"http://127.0.0.1:{self.http_port}{path}"
        urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=30).close()

    def empty(self) -> None:
        """Delete every study."""
        for study in self.get("/studies"):
            self.delete(f"/studies/{study}")


@contextmanager
def orthanc(folder: Path, *, our_port: int = 1, extra: Mapping[str, Any] | None = None) -> Iterator[Orthanc]:
    """Run Orthanc; it knows us as PELLUCID at `our_port`."""
    program = require_tool("Orthanc")
    plugins = [str(entry / DICOMWEB) for entry in PLUGINS if (entry / DICOMWEB).exists()]
    if not plugins:
        pytest.skip(f"{DICOMWEB} is not installed: make tools")
    archive = Orthanc(port=free_port(), http_port=free_port())
    folder.mkdir(parents=True)
    configuration = {
        "DicomAet": "ORTHANC",
        "DicomPort": archive.port,
        "HttpPort": archive.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomModalities": {
            "pellucid": {
                "AET": "PELLUCID",
                "Host": "127.0.0.1",
                "Port": our_port,
                "AllowEcho": True,
                "AllowStore": True,
                "AllowFind": True,
                "AllowMove": True,
                "AllowGet": True,
                "AllowStorageCommitment": True,
            }
        },
        "Plugins": plugins[:1],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **(extra or {}),
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))

    def answers() -> bool:
        try:
            return bool(archive.get("/system"))
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False

    with running([program, str(folder / "orthanc.json")], folder, answers):
        yield archive


@contextmanager
def dcmqrscp(folder: Path, *, our_port: int = 1) -> Iterator[int]:
    """Run dcmtk's archive as AE title QRSCP; it knows us as PELLUCID at `our_port`. Yields its port."""
    program, port = require_tool("dcmqrscp"), free_port()
    storage = folder / "storage"
    storage.mkdir(parents=True)
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nus = (PELLUCID, 127.0.0.1, {our_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQRSCP {storage} RW (100, 1024mb) ANY\nAETable END\n"
    )

    with running([program, "-c", str(folder / "dcmqrscp.cfg")], folder, lambda: listens(port)):
        yield port


@contextmanager
def running(command: list[str], folder: Path, answers: Callable[[], bool]) -> Iterator[None]:
    """Run a server until the block ends."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while not answers():
            assert process.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < deadline, f"{command[0]} does not start"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    """Tell whether a server on this machine takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
