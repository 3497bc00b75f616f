"""Durable instance files: what a peer was told is stored lies here until retention removes it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from service.errors import DamagedFileError, OutOfSpaceError
from service.files import space_errors
from service.staging import new_part, prepare
from service.storage import Folder, open_storage, remove_old

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from service.records import Instance
    from service.settings import Settings
    from service.storage import Storage, Stored

_KEYS_AT_ONCE = 500
_FILES_AT_ONCE = 8
_SETTLED_AFTER_S = 300.0
"""A younger file may belong to a listener that is about to record it."""


class Incoming:
    """One instance while it arrives: a `.part` file, hashed as it is written.

    Only the data set counts towards `sha256` and `size`; the preamble and the file meta information,
    which the receiver writes, do not.
    """

    def __init__(self, path: Path, *, maximum_bytes: int) -> None:
        self.path = path
        self.size = 0
        self._maximum_bytes = maximum_bytes
        self._digest = hashlib.sha256()
        with space_errors("cannot receive into the spool"):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    @property
    def sha256(self) -> str:
        """Hash of the data set so far, hexadecimal."""
        return self._digest.hexdigest()

    def write_meta(self, data: bytes) -> None:
        """Write preamble and file meta information."""
        self._write(memoryview(data))

    def write(self, data: bytes | memoryview) -> None:
        """Append a piece of the data set; the file can be read by its path at once.

        Raises:
            OutOfSpaceError: the disk is full, or the instance is larger than allowed.
        """
        self.size += len(data)
        if self.size > self._maximum_bytes:
            raise OutOfSpaceError(
                f"the instance is larger than listener.maximum_instance_mb ({self._maximum_bytes >> 20} MB)"
            )
        self._digest.update(data)
        self._write(memoryview(data))

    def close(self) -> None:
        """Close the file; it is complete, and not durable yet."""
        with space_errors("cannot receive into the spool"):
            self._close()

    def discard(self) -> None:
        """Remove the file; harmless after `Spool.keep`."""
        with contextlib.suppress(OSError):
            self._close()
        self.path.unlink(missing_ok=True)

    def _write(self, view: memoryview) -> None:
        with space_errors("cannot receive into the spool"):
            while view:
                view = view[os.write(self._descriptor, view) :]

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Spool:
    """Instances in a storage, by names that come from hashes, never from a peer's UIDs.

    What arrives is first written into a folder of this machine.
    """

    def __init__(
        self,
        root: Path,
        *,
        storage: Storage | None = None,
        minimum_free_bytes: int = 0,
        maximum_instance_bytes: int = 1 << 42,
    ) -> None:
        """Take this machine's folder, in which instances also stay when there is no other storage."""
        self.root = root
        self._storage = storage or Folder(root)
        self._incoming = root / "incoming"
        self._minimum_free_bytes = minimum_free_bytes
        self._maximum_instance_bytes = maximum_instance_bytes

    def prepare(self) -> int:
        """Create the folder and remove what dead processes of this machine left half-written.

        Returns:
            How many half-written files were removed.
        """
        return prepare(self._incoming)

    def check_space(self) -> None:
        """Tell whether an instance can be accepted now.

        Raises:
            OutOfSpaceError: this machine's disk is below the free-space watermark.
            StoreError: the storage is away.
        """
        free = shutil.disk_usage(self.root).free
        if free < self._minimum_free_bytes:
            raise OutOfSpaceError(
                f"{free >> 20} MB free in the spool; listener.minimum_free_mb is {self._minimum_free_bytes >> 20}"
            )
        self._storage.check()

    def receive(self) -> Incoming:
        """Begin an instance.

        Raises:
            OutOfSpaceError: too little space is left to accept one.
            StoreError: the storage is away.
        """
        self.check_space()
        return Incoming(new_part(self._incoming), maximum_bytes=self._maximum_instance_bytes)

    def keep(self, incoming: Incoming, *, study_instance_uid: str, sop_instance_uid: str) -> str:
        """Make an instance durable under its final name and return its key."""
        study = hashlib.sha256(study_instance_uid.encode()).hexdigest()[:32]
        instance = hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]
        key = f"{study[:2]}/{study}/{instance}-{incoming.sha256[:16]}.dcm"
        incoming.close()
        self._storage.put(_instance(key), incoming.path)
        return key

    @contextmanager
    def file(self, key: str) -> Iterator[Path]:
        """Have an instance on this machine, to read, for as long as the context lasts.

        Raises:
            DamagedFileError: it is gone.
            StoreError: it cannot be had now.
        """
        with ExitStack() as stack:
            try:
                path = stack.enter_context(self._storage.file(_instance(key)))
            except DamagedFileError:
                # A listener that looks for orphans has it in hand, or died meanwhile.
                if not self._take_back(key):
                    raise
                path = stack.enter_context(self._storage.file(_instance(key)))
            yield path

    @contextmanager
    def files(self, instances: Sequence[Instance]) -> Iterator[list[Path]]:
        """Have instances on this machine, as they arrived, for as long as the context lasts.

        Raises:
            DamagedFileError: one is gone, or holds another data set than the one that was recorded.
            StoreError: one cannot be had now.
        """
        with ExitStack() as stack:

            def copy(instance: Instance) -> Path:
                path = stack.enter_context(self.file(instance.key))
                _check(path, instance)
                return path

            with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                paths = list(pool.map(copy, instances))
            yield paths

    def remove(self, key: str, *, since: float) -> int:
        """Remove an instance that did not come again after `since` (`time.monotonic`); return its size."""
        return remove_old(self._storage, _instance(key), since=since)

    def set_orphans_aside(
        self, recorded: Callable[[Collection[str]], set[str]], *, settled_after_s: float = _SETTLED_AFTER_S
    ) -> int:
        """Move instances that the ledger does not know into `orphans`: nobody was told that they are stored.

        They come from a ledger that was away or refused, or a machine that stopped, between the file and its row. An
        instance that comes again meanwhile has the same key, so at every moment its content lies here or there; what
        got its row goes back, now, with the next search or when it is read.

        Args:
            recorded: tells which of some keys the ledger has a row for.
            settled_after_s: younger files are left alone.

        Returns:
            How many were moved.
        """
        for keys in _batches(_key_of(entry) for entry in self._storage.entries("orphans")):
            self._take_back(*recorded(keys))
        moved = 0
        for keys in _batches(self._settled(settled_after_s)):
            unknown = set(keys) - recorded(keys)
            for key in sorted(unknown):
                self._storage.move(_instance(key), _orphan(key))
            moved += len(unknown)
            if unknown:
                moved -= self._take_back(*recorded(unknown))
        return moved

    def orphans(self) -> list[Stored]:
        """Instances that were set aside because the ledger does not know them."""
        return sorted(self._storage.entries("orphans"), key=lambda entry: entry.key)

    def remove_orphan(self, entry: Stored) -> None:
        """Remove one of `orphans`."""
        self._storage.remove(entry.key)

    @property
    def place(self) -> str:
        """Where instances lie, for people."""
        return self._storage.place

    def _take_back(self, *keys: str) -> int:
        return sum(self._storage.move(_orphan(key), _instance(key)) for key in keys)

    def _settled(self, settled_after_s: float) -> Iterator[str]:
        for entry in self._storage.entries("instances"):
            if entry.age_s >= settled_after_s:
                yield entry.key.removeprefix("instances/")


def open_spool(settings: Settings) -> Spool:
    """Return the spool that the settings name.

    Raises:
        SettingsError: the extra `s3` is needed and not installed.
    """
    return Spool(
        settings.state.directory.absolute() / "spool",
        storage=open_storage(settings, "spool"),
        minimum_free_bytes=settings.listener.minimum_free_mb << 20,
        maximum_instance_bytes=settings.listener.maximum_instance_mb << 20,
    )


def _instance(key: str) -> str:
    return f"instances/{key}"


def _orphan(key: str) -> str:
    return f"orphans/{key.replace('/', '-')}"


def _key_of(orphan: Stored) -> str:
    # Study and instance are hexadecimal; the name has one more '-' of its own, behind them.
    return orphan.key.removeprefix("orphans/").replace("-", "/", 2)


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    left = iter(keys)
    while some := list(islice(left, _KEYS_AT_ONCE)):
        yield some


def _check(path: Path, instance: Instance) -> None:
    """Compare the data set, which stands at the end of the file, with what was recorded when it arrived."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - instance.size))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != instance.sha256:
        raise DamagedFileError(
            f"the file {_instance(instance.key)} is not what arrived: restore it from a backup, then pellucid retry"
        )
