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

    def path(self, key: str) -> Path:
        """Return where an object lies."""
        return self.root / key
