"""Waiting for what happens elsewhere, in a thread or a process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def comes_true(condition: Callable[[], bool], within_s: float) -> bool:
    """Ask again and again; True as soon as it is so, False when it is not in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
