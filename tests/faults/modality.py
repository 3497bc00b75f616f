"""The senders: dcmtk and our own client in turn. A modality sends an image until it hears success, then never again."""

from __future__ import annotations

import itertools
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
    import random
    from collections.abc import Sequence
    from pathlib import Path

SIZE = (256, 256)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """An instance for which success was answered."""

    sop_instance_uid: str
    sha256: str
    """Of its data set."""


class Modality:
    """Makes films and sends them; remembers what was acknowledged."""

    def __init__(self, folder: Path, *, ports: Sequence[int], seed: int) -> None:
        self.acknowledged: list[Sent] = []
        self._folder = folder
        self._ports = itertools.cycle(ports)
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
            sent = self._send_once(film)
            if sent or time.monotonic() > deadline:
                return sent
            time.sleep(0.3)

    def status_of(self, film: Path) -> int | None:
        """Send a film once and return the status that was answered; None when there was no answer."""
        status = self._with_client(film)
        self._note(film, status)
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

    def _send_once(self, film: Path) -> Sent | None:
        """Send with dcmtk every other time."""
        self._sends += 1
        return self._note(film, self._with_dcmtk(film) if self._sends % 2 else self._with_client(film))

    def _note(self, film: Path, status: int | None) -> Sent | None:
        if status != 0:
            return None
        sent = Sent(sop_instance_uid=read_file(film).sop_instance_uid, sha256=dataset_sha256(film.read_bytes()))
        self.acknowledged.append(sent)
        return sent

    def _with_client(self, film: Path) -> int | None:
        (outcome,) = send_files([film], "127.0.0.1", next(self._ports), "PELLUCID", PACS_AE)
        return outcome.status

    def _with_dcmtk(self, film: Path) -> int | None:
        command = [require_tool("storescu"), "-to", "5", "-ta", "15", "-td", "15", "-aet", PACS_AE, "-aec", "PELLUCID"]
        try:
            done = subprocess.run(
                [*command, "127.0.0.1", str(next(self._ports)), str(film)], check=False, capture_output=True, timeout=40
            )
        except subprocess.TimeoutExpired:
            return None
        return 0 if done.returncode == 0 else None
