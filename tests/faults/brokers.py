"""Redis and PostgreSQL that can be killed, frozen and restarted on the same port."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from workers.sandbox import end, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RedisBroker:
    """A Redis that forgets everything when it dies."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, empty."""
        command = ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=log, stderr=log)
        probe = ["redis-cli", "-p", str(self._port), "ping"]
        wait_until(
            lambda: subprocess.run(probe, check=False, capture_output=True).returncode == 0,
            timeout_s=60,
            what="Redis does not start",
        )

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it without closing a connection."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        assert self._process is not None
        end(self._process)


class PostgresqlCluster:
    """A cluster that `postgresql_server` runs below this process."""

    def __init__(self, folder: Path) -> None:
        (self._server,) = [
            child
            for child in psutil.Process().children()
            if child.name() == "postgres" and str(folder / "data") in child.cmdline()
        ]
        self._command = self._server.cmdline()
        self._own: subprocess.Popen[bytes] | None = None

    def restart(self, *, away_s: float) -> None:
        """Shut down fast, which ends every connection, and start again after a while."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(30)
        time.sleep(away_s)
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        self._own = subprocess.Popen(
            [*user, *self._command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        self._server = psutil.Process(self._own.pid)
        port = self._command[self._command.index("-p") + 1]
        probe = [self._command[0].replace("bin/postgres", "bin/pg_isready"), "-h", "127.0.0.1", "-p", port]
        wait_until(
            lambda: subprocess.run(probe, check=False, capture_output=True).returncode == 0,
            timeout_s=60,
            what="PostgreSQL does not start again",
        )

    def stop(self) -> None:
        """End the one that was started again."""
        if self._own is not None:
            self._own.send_signal(signal.SIGINT)
            self._own.wait(30)
