"""Durable instance files: what a peer was told is stored lies here until retention removes it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import time
import uuid
from typing import TYPE_CHECKING

import psutil

from service.errors import OutOfSpaceError
from service.files import make_directory, move_durably, space_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

_KEYS_AT_ONCE = 500
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

    def sync(self) -> None:
        """Put every byte on the disk and close the file."""
        with space_errors("cannot receive into the spool"):
            os.fsync(self._descriptor)
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
    """A folder of instances. File names come from hashes, never from a peer's UIDs."""

    def __init__(self, root: Path, *, minimum_free_bytes: int = 0, maximum_instance_bytes: int = 1 << 42) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._orphans = root / "orphans"
        self._minimum_free_bytes = minimum_free_bytes
        self._maximum_instance_bytes = maximum_instance_bytes
        self._owner = f"{socket.gethostname()}-{os.getpid()}"

    def prepare(self) -> int:
        """Create the folders and remove what dead receivers of this machine left half-written.

        Returns:
            How many half-written files were removed.
        """
        make_directory(self._incoming)
        stale = [path for path in self._incoming.glob("*.part") if self._is_stale(path.name)]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def check_space(self) -> None:
        """Raise `OutOfSpaceError` when the disk is below the free-space watermark."""
        free = shutil.disk_usage(self.root).free
        if free < self._minimum_free_bytes:
            raise OutOfSpaceError(
                f"{free >> 20} MB free in the spool; listener.minimum_free_mb is {self._minimum_free_bytes >> 20}"
            )

    def receive(self) -> Incoming:
        """Begin an instance.

        Raises:
            OutOfSpaceError: too little space is left to accept one.
        """
        self.check_space()
        path = self._incoming / f"{self._owner}-{uuid.uuid4().hex}.part"
        return Incoming(path, maximum_bytes=self._maximum_instance_bytes)

    def keep(self, incoming: Incoming, *, study_instance_uid: str, sop_instance_uid: str) -> str:
        """Make an instance durable under its final name and return its key."""
        study = hashlib.sha256(study_instance_uid.encode()).hexdigest()[:32]
        instance = hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]
        key = f"{study[:2]}/{study}/{instance}-{incoming.sha256[:16]}.dcm"
        incoming.sync()
        with space_errors("cannot keep the instance in the spool"):
            move_durably(incoming.path, self.path(key))
        return key

    def forget(self, key: str, recorded: Callable[[Collection[str]], set[str]]) -> bool:
        """Remove an instance if and only if no ledger row refers to it; tell whether it was removed.

        Args:
            key: of the instance.
            recorded: tells which of some keys the ledger has a row for.
        """
        if recorded([key]):
            return False
        self._move_aside(key)
        aside = self._orphans / _flat(key)
        # The same instance may have come by another association at this moment: then its file goes back.
        if recorded([key]):
            if not self.path(key).exists():
                move_durably(aside, self.path(key))
            return False
        aside.unlink(missing_ok=True)
        return True

    def path(self, key: str) -> Path:
        """Return where an instance lies."""
        return self.root / "instances" / key

    def set_orphans_aside(
        self, recorded: Callable[[Collection[str]], set[str]], *, settled_after_s: float = _SETTLED_AFTER_S
    ) -> int:
        """Move instances that the ledger does not know into `orphans`: nobody was told that they are stored.

        They come from a ledger that was away, or a machine that stopped, between the file and its row.

        Args:
            recorded: tells which of some keys the ledger has a row for.
            settled_after_s: younger files are left alone.

        Returns:
            How many were moved.
        """
        moved = 0
        for keys in self._settled(settled_after_s):
            unknown = sorted(set(keys) - recorded(keys))
            for key in unknown:
                self._move_aside(key)
            # The peer may have sent one again at this moment: then the row is there now, and the file goes back.
            again = recorded(unknown) if unknown else set()
            for key in again:
                move_durably(self._orphans / _flat(key), self.path(key))
            moved += len(unknown) - len(again)
        return moved

    def orphans(self) -> list[Path]:
        """Instances that were set aside because the ledger does not know them."""
        return sorted(self._orphans.glob("*.dcm")) if self._orphans.is_dir() else []

    def _settled(self, settled_after_s: float) -> Iterator[list[str]]:
        root = self.root / "instances"
        newest = time.time() - settled_after_s
        keys: list[str] = []
        for path in root.glob("*/*/*.dcm"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime <= newest:
                    keys.append(str(path.relative_to(root)))
            if len(keys) >= _KEYS_AT_ONCE:
                yield keys
                keys = []
        if keys:
            yield keys

    def _move_aside(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            move_durably(self.path(key), self._orphans / _flat(key))

    def _is_stale(self, name: str) -> bool:
        host, pid, _ = name.rsplit("-", 2)
        if host != socket.gethostname() or not pid.isdigit():
            return False
        return int(pid) == os.getpid() or not psutil.pid_exists(int(pid))


def _flat(key: str) -> str:
    return key.replace("/", "-")
