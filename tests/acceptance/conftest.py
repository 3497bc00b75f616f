"""Servers of the tests' own: Redis and PostgreSQL on free loopback ports."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from require import require_tool

from workers.sandbox import end, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [require_tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with (tmp_path / "redis.log").open("wb") as log:
        process = subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=log, stderr=subprocess.STDOUT)
    yield f"redis://127.0.0.1:{port}/0"
    end(process)


@pytest.fixture
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of its own. PostgreSQL refuses to run as root, so root hands it to the user `postgres`."""
    require_tool("pg_ctlcluster")
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    data = tmp_path_factory.mktemp("postgresql") / "data"
    data.mkdir(mode=0o700)
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run(["chown", "postgres:postgres", str(data)], check=True)
        for folder in data.parents[:3]:
            folder.chmod(folder.stat().st_mode | 0o011)
    initdb = [*prefix, str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "pellucid", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/")
    port = free_port()
    server = [*prefix, str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    process = subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    probe = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
    wait_until(
        lambda: subprocess.run(probe, check=False, capture_output=True).returncode == 0,
        timeout_s=30,
        what="PostgreSQL does not start",
    )
    yield f"postgresql+psycopg://pellucid@127.0.0.1:{port}/postgres"
    end(process)
