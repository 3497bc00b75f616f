"""Objects waiting for delivery: DICOM files that a job made, kept byte for byte."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from service.files import write_durably

if TYPE_CHECKING:
    from pathlib import Path


class Outbox:
    """A folder of finished objects, one sub-folder per job."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def keep(self, job_id: str, data: bytes) -> str:
        """Make an object durable; equal bytes of the same job give the same key."""
        key = f"{job_id[:2]}/{job_id}/{hashlib.sha256(data).hexdigest()[:32]}.dcm"
        write_durably(self.path(key), data)
        return key

    def files(self) -> list[Path]:
        """Every object that lies here, by path."""
        return sorted(self.root.glob("*/*/*.dcm"))

    def key(self, path: Path) -> str:
        """Return the key of a file that `files` listed."""
        return path.relative_to(self.root).as_posix()

    def path(self, key: str) -> Path:
        """Return where an object lies."""
        return self.root / key
