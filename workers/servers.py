"""Redis and PostgreSQL of our own, on free loopback ports: for benchmarks and tests."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import PellucidError
from workers.sandbox import end, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_BINARIES = Path("/usr/lib/postgresql")


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run `redis-server` without persistence; yield its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        probe = ["redis-cli", "-p", str(port), "ping"]
        wait_until(lambda: _succeeds(probe), timeout_s=60, what="Redis does not start")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        end(process)


@contextmanager
def postgresql_server(folder: Path, *, durable: bool = True) -> Iterator[str]:
    """Run a cluster of its own and yield its SQLAlchemy URL; `durable=False` waits for no disk, for tests.

    PostgreSQL refuses to run as root, so root hands the cluster to the user `postgres`.
    """
    found = sorted(_BINARIES.glob("*/bin"))
    if not found:
        raise PellucidError("PostgreSQL is not installed: make tools")
    binaries, data = found[-1], folder / "data"
    data.mkdir(parents=True, mode=0o700)
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run(["chown", "postgres:postgres", str(data)], check=True)
        for parent in data.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
    port = free_port()
    initdb = [*prefix, str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "pellucid"]
    initdb += [] if durable else ["--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/")
    server = [*prefix, str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    server += ["-N", "300", *([] if durable else ["-F"])]
    process = subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        probe = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: _succeeds(probe), timeout_s=120, what="PostgreSQL does not start")
        yield f"postgresql+psycopg://pellucid@127.0.0.1:{port}/postgres"
    finally:
        end(process)


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
