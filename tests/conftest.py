"""What all tests share: real data when it lies beside the checkout, tools, and no dependence on the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


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
