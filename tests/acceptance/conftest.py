"""Servers of the tests' own: Redis and PostgreSQL on free loopback ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from require import require_tool

from workers.servers import postgresql_server, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    require_tool("redis-server")
    with redis_server(tmp_path / "redis") as url:
        yield url


@pytest.fixture
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    require_tool("pg_ctlcluster")
    with postgresql_server(tmp_path_factory.mktemp("postgresql"), durable=False) as url:
        yield url
