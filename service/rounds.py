"""What a process does again and again: a failure never ends it, and fills neither log nor processor."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
"""Whoever mends what failed need not wait longer than this."""


class Round:
    """Something to do again and again; a failure is counted and logged by its type, and never ends the loop."""

    def __init__(self, name: str, every_s: float, step: Callable[[], object]) -> None:
        self._name = name
        self._every_s = every_s
        self._step = step
        self._due_at = 0.0
        self._in_a_row = 0
        self.failures = 0

    def is_due(self, now: float) -> bool:
        """Tell whether its time has come."""
        return now >= self._due_at

    def run_if_due(self, now: float) -> None:
        """Do it when its time has come; after failures that takes longer each time."""
        if not self.is_due(now):
            return
        self._due_at = now + self._every_s
        try:
            self._step()
        except Exception as error:  # noqa: BLE001 -- the outer loop of the process
            self._failed(now, error)
        else:
            if self._in_a_row:
                log.info("%s works again after %d failures", self._name, self._in_a_row)
            self._in_a_row = 0

    def _failed(self, now: float, error: Exception) -> None:
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._in_a_row, 10))
        self._due_at = max(self._due_at, now + pause)
        self._in_a_row += 1
        self.failures += 1
        # A database that is away for a night would fill the disk with one and the same line.
        if self._in_a_row.bit_count() == 1:
            log.error("%s failed (%d times in a row): %s", self._name, self._in_a_row, type(error).__name__)
