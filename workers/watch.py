"""Ends a worker that would live and work no more, so that whoever supervises it starts a fresh one."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from celery.platforms import EX_FAILURE
from celery.worker import state

from service.queue import waiting
from workers.relay import NobodyLeftError

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from workers.relay import Relay
    from workers.zygote import Zygote

log = logging.getLogger(__name__)

PROCESSES_EVERY_S = 0.5
CALLS_EVERY_S = 5.0
PATIENCE_S = 10.0
"""For an orderly end."""
IDLE_AT_MOST_S = 30.0
"""So long calls may wait in front of a worker that takes none."""


def watch(app: Celery, relay: Relay, zygote: Zygote) -> None:
    """Watch from now on, in threads of this process."""
    idleness = Idleness(
        calls=lambda: waiting(app),
        begun=lambda: state.all_total_count[0],
        busy=lambda: bool(state.active_requests),
    )
    threading.Thread(target=_watch_processes, args=(relay, zygote), name="watch processes", daemon=True).start()
    threading.Thread(target=_watch_calls, args=(idleness,), name="watch calls", daemon=True).start()


def end_worker(why: str) -> None:
    """Let this worker end, so that its supervisor starts it anew: after the job in hand if there is one."""
    log.error("%s: the worker starts again", why)
    state.should_terminate = EX_FAILURE


@dataclass(kw_only=True)
class Idleness:
    """For how long calls have been waiting while this worker took none."""

    calls: Callable[[], int]
    """How many wait in the broker, as the broker itself says. A call that was lost is no fault of this worker."""
    begun: Callable[[], int]
    """How many this worker has begun since its start."""
    busy: Callable[[], bool]
    """Whether it is at work, or waits for models to be loaded again."""
    clock: Callable[[], float] = time.monotonic
    _before: int = 0
    _since: float | None = field(default=None)

    def look(self) -> float:
        """Return the seconds so far; 0 while it works, nothing waits or the broker is out of reach."""
        now, begun = self.clock(), self.begun()
        if begun != self._before or self.busy() or not self._calls_wait():
            self._before, self._since = begun, None
            return 0.0
        if self._since is None:
            self._since = now
        return now - self._since

    def _calls_wait(self) -> bool:
        try:
            return self.calls() > 0
        except Exception as error:  # noqa: BLE001 -- whatever the broker's client raises: Celery connects again
            log.warning("the broker is out of reach (%s)", type(error).__name__)
            return False


def _watch_processes(relay: Relay, zygote: Zygote) -> None:
    """Replace the process that analyses if it ended between two jobs; without the one that forks, end."""
    while not _ending():
        try:
            relay.mend()
        except NobodyLeftError as error:
            end_worker(str(error))
        if not zygote.is_alive():
            end_worker("the process that forks has ended unexpectedly")
        if state.should_terminate:
            time.sleep(PATIENCE_S)
            # The loop that should have seen it hangs; nothing is lost by leaving, the ledger knows the jobs.
            os._exit(EX_FAILURE)
        time.sleep(PROCESSES_EVERY_S)


def _watch_calls(idleness: Idleness) -> None:
    """End when calls wait and the worker takes none: it lost its broker without noticing."""
    while not _ending():
        if idleness.look() > IDLE_AT_MOST_S:
            log.error("calls have waited for %.0f s and this worker took none: it starts again", IDLE_AT_MOST_S)
            os._exit(EX_FAILURE)
        time.sleep(CALLS_EVERY_S)


def _ending() -> bool:
    # By identity: an orderly end is asked for by the exit code 0, which equals False.
    return not (state.should_stop is None or state.should_stop is False)
