from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from service.ledger.arrivals import Arrival, Outcome
from service.together import Together
from tests.unit.service.conftest import make_instance

if TYPE_CHECKING:
    from tests.unit.service.conftest import Books


def arrival(sop: str, **changes: object) -> Arrival:
    return Arrival(instance=make_instance(sop, **changes), association="a", association_expires_at=0.0)


def record_at_once(recorder: Together[Arrival, Outcome], arrivals: list[Arrival]) -> list[object]:
    """Let several threads record while somebody else is writing."""
    results: list[object] = [None] * len(arrivals)

    def record(index: int) -> None:
        try:
            results[index] = recorder.do(arrivals[index])
        except IntegrityError as error:
            results[index] = error

    threads = [threading.Thread(target=record, args=(index,)) for index in range(len(arrivals))]
    with recorder._doing:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(recorder._queue) < len(arrivals) and time.monotonic() < deadline:
            time.sleep(0.01)
    for thread in threads:
        thread.join(timeout=30)
    return results


def test_what_waits_is_recorded_in_one_transaction(books: Books) -> None:
    commits: list[object] = []
    event.listen(books.engine, "commit", commits.append)
    results = record_at_once(Together(books.arrivals.record_all), [arrival(f"1.2.{index}") for index in range(6)])
    assert results == [Outcome.STORED] * 6
    assert len(commits) == 1
    assert len(books.arrivals.unassigned()) == 6


def test_one_that_the_database_refuses_does_not_harm_the_others(books: Books) -> None:
    entries = [arrival("1.2.1"), arrival("1.2.2", modality=None), arrival("1.2.3")]
    results = record_at_once(Together(books.arrivals.record_all), entries)
    assert [results[0], results[2]] == [Outcome.STORED] * 2
    assert isinstance(results[1], IntegrityError)
    assert {entry.sop_instance_uid for entry in books.arrivals.unassigned()} == {"1.2.1", "1.2.3"}


def test_an_error_reaches_the_one_who_asked(books: Books) -> None:
    with pytest.raises(IntegrityError):
        Together(books.arrivals.record_all).do(arrival("1.2.1", modality=None))
