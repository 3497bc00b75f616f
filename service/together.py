"""Does what several threads ask for at the same time in one go: where each go costs a wait for the disk."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_AT_ONCE = 64

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


@dataclass(kw_only=True, eq=False)
class _Waiting(Generic[Asked, Answered]):
    asked: Asked
    done: bool = False
    answered: list[Answered]
    error: Exception | None = None


class Together(Generic[Asked, Answered]):
    """Whoever finds nobody at it takes everything that waits into its own go."""

    def __init__(self, do_all: Callable[[Sequence[Asked]], Sequence[Answered]]) -> None:
        """Take what does several at once, all or none, and returns an answer for each."""
        self._do_all = do_all
        self._doing = threading.Lock()
        self._guard = threading.Lock()
        self._queue: list[_Waiting[Asked, Answered]] = []

    def do(self, asked: Asked) -> Answered:
        """Do it, with others that wait; what goes wrong is raised for whom it concerns."""
        mine = _Waiting[Asked, Answered](asked=asked, answered=[])
        with self._guard:
            self._queue.append(mine)
        with self._doing:
            while not mine.done:
                self._do(self._next())
        if mine.error:
            raise mine.error
        return mine.answered[0]

    def _next(self) -> list[_Waiting[Asked, Answered]]:
        with self._guard:
            batch, self._queue = self._queue[:MOST_AT_ONCE], self._queue[MOST_AT_ONCE:]
            return batch

    def _do(self, batch: list[_Waiting[Asked, Answered]]) -> None:
        try:
            answers = self._do_all([entry.asked for entry in batch])
        except Exception as error:  # noqa: BLE001 -- whoever asked must hear of it
            if len(batch) > 1:
                # One of them may be at fault; the others must not suffer for it.
                for entry in batch:
                    self._do([entry])
                return
            batch[0].error = error
        else:
            for entry, answer in zip(batch, answers, strict=True):
                entry.answered.append(answer)
        for entry in batch:
            entry.done = True
