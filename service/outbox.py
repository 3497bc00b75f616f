"""Objects waiting for delivery: DICOM files that a job made, kept byte for byte."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from service.storage import open_storage, remove_old

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from service.settings import Settings
    from service.storage import Storage, Stored


class Outbox:
    """Finished objects, below one name per job."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check(self) -> None:
        """Raise `StoreError` when nothing can be kept or read now."""
        self._storage.check()

    def keep(self, job_id: str, data: bytes) -> str:
        """Make an object durable; equal bytes of the same job give the same key."""
        key = f"{job_id[:2]}/{job_id}/{hashlib.sha256(data).hexdigest()[:32]}.dcm"
        self._storage.write(key, data)
        return key

    def file(self, key: str) -> AbstractContextManager[Path]:
        """Have an object on this machine, to read, for as long as the context lasts.

        Raises:
            DamagedFileError: it is gone.
            StoreError: it cannot be had now.
        """
        return self._storage.file(key)

    def objects(self) -> Iterator[Stored]:
        """List every object that lies here."""
        return self._storage.entries("")

    def remove(self, key: str, *, since: float) -> int:
        """Remove an object that was not kept anew after `since` (`time.monotonic`); return its size."""
        return remove_old(self._storage, key, since=since)


def open_outbox(settings: Settings) -> Outbox:
    """Return the outbox that the settings name.

    Raises:
        SettingsError: the extra `s3` is needed and not installed.
    """
    return Outbox(open_storage(settings, "outbox"))
