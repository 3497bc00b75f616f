"""Records arrivals of many associations in few transactions: each costs a wait for the disk."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.ledger.arrivals import Arrival, Arrivals, Outcome

MOST_AT_ONCE = 64


@dataclass(kw_only=True, eq=False)
class _Waiting:
    arrival: Arrival
    done: bool = False
    outcome: Outcome | None = None
    error: Exception | None = None


class Recorder:
    """Whoever finds nobody writing takes everything that waits into its own transaction."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._writing = threading.Lock()
        self._guard = threading.Lock()
        self._queue: list[_Waiting] = []

    def record(self, arrival: Arrival) -> Outcome:
        """Record an arrival durably.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the ledger is away; it may have been recorded or not.
        """
        mine = _Waiting(arrival=arrival)
        with self._guard:
            self._queue.append(mine)
        with self._writing:
            while not mine.done:
                self._write(self._next())
        if mine.error:
            raise mine.error
        assert mine.outcome is not None  # noqa: S101 -- set with `done`
        return mine.outcome

    def _next(self) -> list[_Waiting]:
        with self._guard:
            batch, self._queue = self._queue[:MOST_AT_ONCE], self._queue[MOST_AT_ONCE:]
            return batch

    def _write(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = self._arrivals.record_all([entry.arrival for entry in batch])
        except Exception as error:  # noqa: BLE001 -- each association must hear of it
            if len(batch) > 1:
                # One of them may be what the database refuses; the others must not suffer for it.
                for entry in batch:
                    self._write([entry])
                return
            batch[0].error = error
        else:
            for entry, outcome in zip(batch, outcomes, strict=True):
                entry.outcome = outcome
        for entry in batch:
            entry.done = True
