"""Hands jobs to the process that analyses; when a study ends that process, the one that stands by takes over."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from service.errors import PellucidError

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.zygote import Line

log = logging.getLogger(__name__)

READY = b"ready"
"""A process has loaded what it needs."""
TAKE_OVER = b"take over"
"""Its turn has come: job ids follow."""
DONE = b"done"
"""With a job."""
END = b""
"""No more jobs."""
_GONE = (EOFError, OSError)
_ENDS_WITHIN_S = 10.0


class NobodyLeftError(PellucidError):
    """The process that analyses does not start: its own lines in the log say why."""


class Relay:
    """One process at work, and where wanted the next one, ready."""

    def __init__(self, fork: Callable[[], Line], *, standby: bool) -> None:
        """Start, and wait until the first one is ready.

        Args:
            fork: starts a process that says `READY`, waits for `TAKE_OVER` and answers job ids with `DONE`.
            standby: whether the next one stands by.

        Raises:
            NobodyLeftError: it does not start.
        """
        self._fork = fork
        self._standby = standby
        self._next: Line | None = None
        self._hands = threading.Lock()
        self._line = self._successor()

    def run(self, job_id: str) -> None:
        """Have a job done. It comes back too when the job has ended its process, as soon as another one is ready.

        Raises:
            NobodyLeftError: no other one starts.
        """
        with self._hands:
            while not self._handed(job_id):
                self._replace()
            try:
                self._line.recv_bytes()
            except _GONE:
                log.error("job %s: the process that analysed it has ended; the sweep calls again", job_id)  # noqa: TRY400
                self._replace()

    def mend(self) -> None:
        """Replace the process if it ended while it had nothing to do.

        Raises:
            NobodyLeftError: no other one starts.
        """
        if self._hands.acquire(blocking=False):
            try:
                # It never speaks first: what can be read is the end.
                if self._line.poll():
                    log.error("the process that analyses has ended between two jobs")
                    self._replace()
            finally:
                self._hands.release()

    def close(self) -> None:
        """End the processes in good order."""
        with self._hands, contextlib.suppress(*_GONE):
            if self._next:
                self._next.close()
            self._line.send_bytes(END)
            self._line.poll(_ENDS_WITHIN_S)
            self._line.close()

    def _handed(self, job_id: str) -> bool:
        try:
            self._line.send_bytes(job_id.encode())
        except _GONE:
            return False
        return True

    def _replace(self) -> None:
        self._line.close()
        self._line = self._successor()

    def _successor(self) -> Line:
        """Return the line to a process that is ready; the one that stood by may have ended, too."""
        for _ in range(2):
            try:
                line, self._next = self._next or self._fork(), None
                line.recv_bytes()
                line.send_bytes(TAKE_OVER)
                if self._standby:
                    self._next = self._fork()
            except _GONE:
                continue
            return line
        raise NobodyLeftError("the process that analyses does not start: its own lines in the log say why")
