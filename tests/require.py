"""Programs that tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def require_tool(name: str) -> str:
    """Return the path of a program; its absence fails in CI and skips elsewhere."""
    found = shutil.which(name)
    if found:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing: run make tools")
    pytest.skip(f"{name} is not installed: make tools")
