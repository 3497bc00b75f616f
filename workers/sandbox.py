"""A whole Pellucid with a PACS beside it, on free loopback ports: for the demo, benchmarks and tests."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Protocol

from dicom_nodes.client import echo
from dicom_nodes.receiver import Receiver
from service.errors import DestinationError, PellucidError
from service.ledger.database import open_database
from service.ledger.report import JobReport, Reports
from service.records import JobState
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PACS_AE = "PACS"
_POLL_S = 0.05
_PORTS = (20_000, 32_000)


class Pacs(Protocol):
    """The archive that studies come from and results return to."""

    name: str
    port: int

    def fetch(self, sop_instance_uid: str) -> bytes | None:
        """Return the Part 10 file of an instance as the PACS holds it; None when it has none."""

    def stop(self) -> None:
        """End it."""


class OrthancPacs:
    """A real Orthanc with a storage folder of its own."""

    name = "Orthanc"

    def __init__(self, folder: Path, *, port: int = 0, extra: Mapping[str, Any] | None = None) -> None:
        self.port = port or free_port()
        self.http_port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        configuration = {
            "DicomAet": PACS_AE,
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            **(extra or {}),
        }
        path = folder / "orthanc.json"
        path.write_text(json.dumps(configuration))
        self._log = (folder / "orthanc.log").open("wb")
        self._process = subprocess.Popen(["Orthanc", str(path)], stdout=self._log, stderr=subprocess.STDOUT)
        wait_until(self._answers, timeout_s=20.0, what="Orthanc does not start")

    def get(self, path: str, body: bytes | None = None) -> Any:
        """Ask Orthanc's REST interface; a body makes it a POST. JSON answers are decoded."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", body, timeout=30) as answer:
            content = answer.read()
            return json.loads(content) if "json" in answer.headers.get("Content-Type", "") else content

    def fetch(self, sop_instance_uid: str) -> bytes | None:
        """Look an instance up by its UID and read its file."""
        matches = [
            entry for entry in self.get("/tools/lookup", sop_instance_uid.encode()) if entry["Type"] == "Instance"
        ]
        return bytes(self.get(f"{matches[0]['Path']}/file")) if matches else None

    def stop(self) -> None:
        """End the process."""
        end(self._process)
        self._log.close()

    def _answers(self) -> bool:
        try:
            self.get("/system")
        except (urllib.error.URLError, OSError):
            return False
        return True


class ReceiverPacs:
    """The demo's own storage SCP."""

    name = "a small storage SCP (Orthanc is not installed)"

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.port = port or free_port()
        self._receiver = Receiver(folder, ae_title=PACS_AE, port=self.port)

    def fetch(self, sop_instance_uid: str) -> bytes | None:
        """Read what arrived."""
        return self._receiver.fetch(sop_instance_uid)

    def stop(self) -> None:
        """Close the port."""
        self._receiver.stop()


def any_pacs(folder: Path) -> Pacs:
    """Orthanc where it is installed, else the small storage SCP."""
    return OrthancPacs(folder) if shutil.which("Orthanc") else ReceiverPacs(folder)


class Sandbox:
    """`pellucid serve` as a child process, with one peer: the PACS."""

    def __init__(self, folder: Path, *, pacs_port: int, settings: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self._log_path = folder / "pellucid.log"
        self.variables = {
            "PELLUCID__STATE__DIRECTORY": json.dumps(str(folder / "state")),
            "PELLUCID__LISTENER__PORT": str(self.port),
            "PELLUCID__LISTENER__MINIMUM_FREE_MB": "64",
            "PELLUCID__INTAKE__QUIET_PERIOD_S": "2.0",
            "PELLUCID__PEERS__PACS__AE_TITLE": json.dumps(PACS_AE),
            "PELLUCID__PEERS__PACS__HOST": '"127.0.0.1"',
            "PELLUCID__PEERS__PACS__PORT": str(pacs_port),
            **(settings or {}),
        }
        self.settings: Settings = load_settings(None, self.variables)
        self._reports: Reports | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the service logged so far."""
        return self._log_path.read_text(encoding="utf-8", errors="replace") if self._log_path.exists() else ""

    @property
    def reports(self) -> Reports:
        """The service's ledger, to look into."""
        if self._reports is None:
            self._reports = Reports(open_database(self.settings.database_url))
        return self._reports

    @property
    def environment(self) -> dict[str, str]:
        """Environment for further `pellucid` commands with the same settings."""
        return {**os.environ, **self.variables}

    def start(self) -> None:
        """Start `pellucid serve`; `wait_ready` tells when it serves."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from service.cli import main; main()", "serve"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self, *, timeout_s: float = 90.0, progress: Callable[[str], None] | None = None) -> None:
        """Wait for C-ECHO and for a worker with its model loaded."""
        wait_until(self._listens, timeout_s=timeout_s, what="the listener does not start", running=self._check)
        if progress:
            progress("listener answers C-ECHO; the worker loads its model")
        wait_until(self._works, timeout_s=timeout_s, what="the worker does not start", running=self._check)

    def wait_settled(
        self,
        *,
        jobs: int,
        timeout_s: float = 120.0,
        progress: Callable[[list[JobReport]], None] | None = None,
    ) -> list[JobReport]:
        """Wait until so many jobs have ended and everything they made is delivered.

        Raises:
            PellucidError: nothing changed for `timeout_s`, or the service ended.
        """
        seen: list[JobReport] = []

        def settled_or_changed() -> bool:
            nonlocal seen
            before, seen = seen, self.reports.jobs()
            if progress:
                progress(seen)
            return seen != before or _all_settled(seen, jobs)

        while not _all_settled(seen, jobs):
            wait_until(settled_or_changed, timeout_s=timeout_s, what=f"{jobs} jobs did not settle", running=self._check)
        return seen

    def stop(self) -> None:
        """End the service in good order."""
        if self._process is not None:
            end(self._process, patience_s=60.0)
            self._process = None
        if self._reports is not None:
            self._reports.engine.dispose()
            self._reports = None

    def _check(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise PellucidError(f"pellucid serve ended with code {self._process.returncode}:\n{self.log[-2000:]}")

    def _listens(self) -> bool:
        try:
            echo("127.0.0.1", self.port, called=self.settings.listener.ae_title, calling=PACS_AE)
        except DestinationError:
            return False
        return True

    def _works(self) -> bool:
        return any(process.name == "worker" for process in self.reports.alive(within_s=15.0))


def _all_settled(reports: Sequence[JobReport], jobs: int) -> bool:
    return len(reports) >= jobs and all(is_settled(report) for report in reports)


def is_settled(report: JobReport) -> bool:
    """Tell whether a job has ended and nothing of it is on its way."""
    unfinished = report.job.state in (JobState.QUEUED, JobState.RUNNING)
    return not unfinished and report.delivered + report.rejected == report.objects


def wait_until(
    condition: Callable[[], bool], *, timeout_s: float, what: str, running: Callable[[], None] | None = None
) -> None:
    """Poll a condition.

    Raises:
        PellucidError: it did not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if running:
            running()
        if time.monotonic() > deadline:
            raise PellucidError(f"{what} ({timeout_s:.0f} s)")
        time.sleep(_POLL_S)


def free_port() -> int:
    """Return a free TCP port on loopback, from below those that systems give to outgoing connections.

    Else a connection of anybody's could take it before the server that it is for, or while that one starts anew.
    """
    while True:
        port = random.randrange(*_PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def end(process: subprocess.Popen[bytes], *, patience_s: float = 10.0) -> None:
    """Terminate a process that we started, then kill it if it does not listen."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
