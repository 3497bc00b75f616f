"""Drops messages that end a worker: kombu and Celery survive much that is no call for a job, not all of it."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


def note_dropped(error: Exception) -> None:
    """Say so. Nothing is lost: the sweep calls again for every job that is not done."""
    log.warning("a message in the queue that is none was dropped (%s)", type(error).__name__)


class Dropping:
    """For kombu's virtual transports: what fails to be delivered is dropped, and the worker takes the next message.

    Not a connection that fails, which Celery mends; nor a task, whose errors never come this far.
    """

    connection_errors: tuple[type[BaseException], ...]
    channels: list[Any]

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            super()._deliver(message, queue)  # type: ignore[misc]  # of kombu's transport, which this is mixed into
        except Exception as error:
            # kombu counts a KeyError among Redis's, and here a message misses a key.
            if isinstance(error, self.connection_errors) and not isinstance(error, KeyError):
                raise
            note_dropped(error)
            self._settle()

    def _settle(self) -> None:
        """Acknowledge what the worker had taken: it takes one message at a time, and would wait for this one."""
        for channel in self.channels:
            for tag in list(channel.qos._delivered):  # noqa: SLF001 -- kombu offers no other way to ask
                channel.basic_ack(tag)
