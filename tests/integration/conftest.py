"""Listeners that several modules talk to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from certificates import Authority

from tests.network import station
from tests.tls_station import tls_station

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.network import Station
    from tests.tls_station import House


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Station]:
    """A listener of its own."""
    with station(tmp_path) as running:
        yield running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that issues certificates."""
    return Authority(tmp_path / "pki")


@pytest.fixture
def house(tmp_path: Path, authority: Authority) -> Iterator[House]:
    """A listener that speaks TLS, with a certificate of that authority."""
    with tls_station(tmp_path, authority, {}, known_only=False) as house:
        yield house
