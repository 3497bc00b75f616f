"""Files of this machine that are on their way: half received, or copies that somebody reads."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING

import psutil

from service.files import make_directory

if TYPE_CHECKING:
    from pathlib import Path


_FOREIGN_AFTER_S = 86_400.0


def new_part(folder: Path) -> Path:
    """Return a name that nobody else takes, and that says whose it is."""
    return folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}.part"


def prepare(folder: Path) -> int:
    """Create a folder and remove what dead processes of this machine left there; for the start of a process.

    Returns:
        How many files were removed.
    """
    make_directory(folder)
    stale = [path for path in folder.glob("*.part") if _is_stale(path)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _is_stale(path: Path) -> bool:
    host, pid, _ = path.name.rsplit("-", 2)
    if host != socket.gethostname() or not pid.isdigit():
        # Of another machine, or of a container that is no more: nothing takes a day to arrive.
        with contextlib.suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > _FOREIGN_AFTER_S
        return False
    # A process that has just begun owns nothing yet; in a container it often has its predecessor's number.
    return int(pid) == os.getpid() or not psutil.pid_exists(int(pid))
