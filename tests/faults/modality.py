"""The senders: dcmtk and our own client in turn. A modality sends an image until it hears success, then never again."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from require import require_tool

from dicom_nodes.client import read_file, send_files
from faults.content import dataset_sha256
from workers.phantom.files import write_samples
from workers.sandbox import PACS_AE

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (256, 256)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """An instance for which success was answered."""

    sop_instance_uid: str
    sha256: str
    """Of its data set."""


class Modality:
    """Makes films and sends them; remembers what was acknowledged, and every other answer."""

    def __init__(self, folder: Path, *, port: int, seed: int) -> None:
        self.acknowledged: list[Sent] = []
        self.refusals: list[int | None] = []
        """Status of each answer that was no success; None where no answer came."""
        self._folder = folder
        self._port = port
        self._seed = seed * 1000
        self._sends = 0
        self._guard = threading.Lock()

    def films(self, count: int) -> list[Path]:
        """Make new studies of one film each."""
        with self._guard:
            self._seed += 1
            seed = self._seed
        return write_samples(self._folder / str(seed), count=count, seed=seed, size=SIZE)

    def send(self, film: Path, *, patience_s: float = 90.0) -> Sent | None:
        """Send until success is answered; None when the patience ended before."""
        deadline = time.monotonic() + patience_s
        while True:
            if self.send_once(film):
                return self.acknowledged[-1]
            if time.monotonic() > deadline:
                return None
            time.sleep(0.3)

    def send_once(self, film: Path) -> bool:
        """Send a film once, with dcmtk every other time; tell whether success was answered."""
        self._sends += 1
        status = self._with_dcmtk(film) if self._sends % 2 else self._with_client(film)
        if status == 0:
            self.acknowledged.append(
                Sent(sop_instance_uid=read_file(film).sop_instance_uid, sha256=dataset_sha256(film.read_bytes()))
            )
        else:
            self.refusals.append(status)
        return status == 0

    def status_of(self, film: Path) -> int | None:
        """Send a film once and return the status that was answered."""
        status = self._with_client(film)
        if status == 0:
            self.acknowledged.append(
                Sent(sop_instance_uid=read_file(film).sop_instance_uid, sha256=dataset_sha256(film.read_bytes()))
            )
        return status

    def flow(self, count: int, rng: random.Random) -> threading.Thread:
        """Send so many new films in the background, at random distances."""
        films = self.films(count)
        pauses = [rng.uniform(0.0, 0.6) for _ in films]

        def run() -> None:
            for film, pause in zip(films, pauses, strict=True):
                self.send(film)
                time.sleep(pause)

        thread = threading.Thread(target=run, name="modality", daemon=True)
        thread.start()
        return thread

    def _with_client(self, film: Path) -> int | None:
        (outcome,) = send_files([film], "127.0.0.1", self._port, "PELLUCID", PACS_AE)
        return outcome.status

    def _with_dcmtk(self, film: Path) -> int | None:
        command = [require_tool("storescu"), "-to", "5", "-ta", "15", "-td", "15", "-aet", PACS_AE, "-aec", "PELLUCID"]
        try:
            done = subprocess.run(
                [*command, "127.0.0.1", str(self._port), str(film)], check=False, capture_output=True, timeout=40
            )
        except subprocess.TimeoutExpired:
            return None
        return 0 if done.returncode == 0 else None
