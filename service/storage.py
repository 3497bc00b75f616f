"""Where files lie that must survive: a folder, of a disk or a shared volume, or an S3-compatible store."""

from __future__ import annotations

import contextlib
import importlib
import time
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from service.errors import DamagedFileError, SettingsError
from service.files import move_durably, space_errors, sync_file, write_durably
from service.staging import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.settings import Settings


_ON_ITS_WAY_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file that lies in a storage."""

    key: str
    size: int
    age_s: float
    """Time since it came to lie there, by the storage's own clock; never more than it is."""


class Storage(Protocol):
    """Keeps whole files under keys made of hashes. Once kept, a file survives the machine that brought it.

    Every method raises `StoreError` while the storage is away, and nothing was done then, or all of it.
    """

    place: str
    """Where it is, for people."""

    def check(self) -> None:
        """Raise when nothing can be kept now; cheap enough to ask before each instance."""

    def put(self, key: str, path: Path) -> None:
        """Keep a file of this machine, in place of one with the same key; the file itself is gone then.

        Raises:
            OutOfSpaceError: there is no room for it.
        """

    def write(self, key: str, data: bytes) -> None:
        """Keep bytes, in place of a file with the same key.

        Raises:
            OutOfSpaceError: there is no room for them.
        """

    def file(self, key: str) -> AbstractContextManager[Path]:
        """Have a file on this machine, to read, for as long as the context lasts.

        Raises:
            DamagedFileError: there is none.
        """

    def find(self, key: str) -> Stored | None:
        """Look for a file."""

    def entries(self, under: str) -> Iterator[Stored]:
        """List the files whose keys begin with a folder; an empty name lists all."""

    def move(self, key: str, to: str) -> bool:
        """Give a file another key; False when there is none."""

    def remove(self, key: str) -> None:
        """Remove a file; harmless when there is none."""


class Folder:
    """A folder. Several machines may share it."""

    def __init__(self, root: Path) -> None:
        self.place = str(root)
        self._root = root

    def path(self, key: str) -> Path:
        """Return where a file lies."""
        return self._root / key

    def check(self) -> None:
        """Nothing: free space is watched where files arrive."""

    def put(self, key: str, path: Path) -> None:
        """Put every byte on the disk, then rename."""
        with space_errors("cannot keep the instance in the spool"):
            sync_file(path)
            move_durably(path, self.path(key))

    def write(self, key: str, data: bytes) -> None:
        """Write, put on the disk, rename."""
        write_durably(self.path(key), data)

    @contextmanager
    def file(self, key: str) -> Iterator[Path]:
        """Read it where it lies."""
        path = self.path(key)
        if not path.is_file():
            raise missing(key, self.place)
        yield path

    def find(self, key: str) -> Stored | None:
        """Look for a file."""
        try:
            found = self.path(key).stat()
        except FileNotFoundError:
            return None
        return Stored(key=key, size=found.st_size, age_s=time.time() - found.st_mtime)

    def entries(self, under: str) -> Iterator[Stored]:
        """List DICOM files; what is half written has another name."""
        for path in (self._root / under).rglob("*.dcm"):
            found = self.find(path.relative_to(self._root).as_posix())
            if found:
                yield found

    def move(self, key: str, to: str) -> bool:
        """Rename."""
        try:
            move_durably(self.path(key), self.path(to))
        except FileNotFoundError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Unlink."""
        with contextlib.suppress(FileNotFoundError):
            self.path(key).unlink()


def open_storage(settings: Settings, name: str) -> Storage:
    """Return what `[spool]` names; `name` is `spool` or `outbox`.

    Raises:
        SettingsError: it is an S3-compatible store, and the extra `s3` is not installed.
    """
    state = settings.state.directory.absolute()
    if not settings.spool.url:
        return Folder(state / name)
    try:
        # boto3 takes 40 MB, which nobody pays who has no S3.
        s3 = importlib.import_module("service.s3")
    except ModuleNotFoundError:
        raise SettingsError("spool.url names an S3 bucket, which needs boto3: pip install 'pellucid[s3]'") from None
    opened: Storage = s3.S3Storage(settings.spool, name, copies=state / "spool" / "incoming")
    return opened


def clear_copies(settings: Settings) -> None:
    """Remove the copies of a store's files that dead processes of this machine left; a folder needs none."""
    if settings.spool.url:
        prepare(settings.state.directory.absolute() / "spool" / "incoming")


def missing(key: str, place: str) -> DamagedFileError:
    """Make the error that says which file is gone, and what to do."""
    return DamagedFileError(f"the file {key} is missing in {place}: restore it from a backup, then pellucid retry")


def remove_old(storage: Storage, key: str, *, since: float) -> int:
    """Remove a file unless it came after `since`, which `time.monotonic` told; return its size.

    A younger one was sent again since its row was marked as deleted: it stays. So does one that was on its way then,
    since a file is as old as its last byte or its upload, and its row comes after that. What stays without a row, as
    after a crash before this, is found later.
    """
    found = storage.find(key)
    if found is None or found.age_s <= time.monotonic() - since + _ON_ITS_WAY_S:
        return 0
    storage.remove(key)
    return found.size
