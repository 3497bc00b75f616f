"""Programs that tests need."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def require_tool(name: str) -> str:
    """Return the path of a program; its absence fails in CI and skips elsewhere."""
    # pynetdicom installs programs with dcmtk's names beside our Python; the system's are meant.
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(entry for entry in os.environ["PATH"].split(os.pathsep) if entry != own)
    found = shutil.which(name, path=path)
    if found:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing: run make tools")
    pytest.skip(f"{name} is not installed: make tools")
