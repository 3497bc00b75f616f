"""Durable files: a file is there with all its bytes after a power cut, or it is not there."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.errors import OutOfSpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def space_errors(what: str) -> Iterator[None]:
    """Turn a full or read-only disk into `OutOfSpaceError`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise OutOfSpaceError(f"{what}: {os.strerror(error.errno)}; free space on this disk") from error
        raise


def make_directory(path: Path) -> None:
    """Create a folder (0700) with its parents, each entry durable before its child."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Put every byte of a file on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_durably(source: Path, target: Path) -> None:
    """Rename an already synced file into its final place and make the new entry durable."""
    make_directory(target.parent)
    source.replace(target)
    sync_directory(target.parent)


def write_durably(target: Path, data: bytes) -> None:
    """Write a whole file (0600): temporary name, fsync, rename, directory fsync.

    Raises:
        OutOfSpaceError: the disk is full; nothing is left behind.
    """
    with space_errors(f"cannot write into {target.parent}"):
        make_directory(target.parent)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            move_durably(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
