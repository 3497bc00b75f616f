"""What all tests share: real data when it lies beside the checkout, tools, and no dependence on the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bucket import Bucket, Server

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


def pytest_configure() -> None:
    """Let torch's threads sleep while they wait, as `pellucid` does: a busy machine would time tests out."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def shared_dicom() -> Path:
    """Real DICOM files beside the checkout."""
    folder = SHARED / "data" / "dicom"
    if not folder.is_dir():
        pytest.skip(f"real images are absent: {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    for name in list(os.environ):
        if name.startswith("PELLUCID"):
            del os.environ[name]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """An S3-compatible server on loopback."""
    # It takes seconds to import, which only those pay who need it.
    from bucket import Server  # noqa: PLC0415

    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: Server) -> Bucket:
    """A bucket of its own."""
    from bucket import Bucket  # noqa: PLC0415

    return Bucket(server=s3_server)
