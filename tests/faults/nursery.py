"""Forks `pellucid` processes from one that has everything imported: a thousand restarts would mostly import torch.

What runs in them is the same; the module is also the program of the process that forks.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from functools import cache
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PRELOADED = (
    "dicom_nodes.listener",
    "dicom_nodes.sender",
    "dicom_nodes.commands",
    "dicom_nodes.objects.secondary_capture",
    "dicom_nodes.objects.structured_report",
    "workers.commands",
    "workers.app",
    "workers.analysing",
    "workers.tasks",
    "workers.explainers.cam",
    "service.redis_queue",
    "service.folder_queue",
    "celery.concurrency.solo",
    "celery.apps.worker",
)
_LIBRARIES = ("safetensors.torch", "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql.psycopg", "alembic")
_POLL_S = 0.02


class Forked:
    """A process that the nursery forked; offers what `subprocess.Popen` does."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def poll(self) -> int | None:
        """None while it runs; the nursery keeps the exit code to itself."""
        if self._process is None:
            return -1
        try:
            running = self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            running = False
        return None if running else -1

    def terminate(self) -> None:
        """SIGTERM."""
        if self.poll() is None and self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        if self.poll() is None and self._process is not None:
            self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("pellucid", timeout or 0.0)
            time.sleep(_POLL_S)
        return -1


class Nursery:
    """The process that forks."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._guard = threading.Lock()

    def fork(self, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Forked:
        """Start `pellucid` with these arguments, after the faults that come before them."""
        order = json.dumps({"arguments": list(arguments), "environment": dict(environment), "log": str(log)})
        with self._guard:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()
            return Forked(int(self._process.stdout.readline()))

    def stop(self) -> None:
        """End it; what it forked is ended by those who ordered it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@cache
def nursery() -> Nursery:
    """Return the only one; it ends with this process."""
    made = Nursery()
    atexit.register(made.stop)
    return made


def _serve() -> None:
    for name in (*_PRELOADED, *_LIBRARIES):
        importlib.import_module(name)
    # Nobody waits for what it forks.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # By line: iteration over a file reads ahead, and a child would inherit what was read.
    while order := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            _become(**json.loads(order))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Be the child; never return into the loop above."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), written, written)):
            os.dup2(descriptor, number)
        os.environ.clear()
        os.environ.update(environment)
        sabotage = importlib.import_module("faults.sabotage")
        sabotage.run(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 -- what Python would do at the end of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    _serve()
