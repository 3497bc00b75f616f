"""What the ledger does otherwise on PostgreSQL than on SQLite: connections that may be lost, and true concurrency."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from service.ledger.arrivals import Arrivals, Outcome
from service.ledger.database import migrate_to, open_database
from service.ledger.delivery import Deliveries
from service.ledger.report import Reports
from service.ledger.work import LeaseLostError, Work
from service.records import JobState
from workers.bench_books import DESTINATION, make_instance, make_job, make_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

UID = "2.25.4711"
JOB = make_job(UID).id


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    engine = open_database(postgresql_url)
    yield engine
    engine.dispose()


@pytest.fixture
def work(engine: Engine) -> Work:
    """One job that waits."""
    instance = make_instance(UID, "key", "0" * 64)
    Arrivals(engine).record(instance, association="a", association_expires_at=time.time() + 30)
    work = Work(engine)
    assert [job.id for job in work.assign([make_job(UID)], [instance])] == [JOB]
    return work


def test_a_connection_that_was_lost_while_it_rested_is_replaced(engine: Engine, postgresql_url: str) -> None:
    reports = Reports(engine)
    reports.answers()
    with psycopg.connect(postgresql_url.replace("+psycopg", ""), autocommit=True) as other:
        ended = other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname <> ''"
        )
        assert ended.fetchall()
    time.sleep(1.2)
    reports.answers()


def test_of_many_that_claim_a_job_one_gets_it(work: Work) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: work.claim(JOB, lease_s=30.0, maximum_attempts=3), range(16)))
    (claim,) = [claim for claim in claims if claim]
    assert (claim.token, claim.job.attempts, claim.job.state) == (1, 1, JobState.RUNNING)
    assert [instance.sop_instance_uid for instance in claim.inputs] == [UID]


def test_a_claim_takes_two_turns_and_an_end_as_many_as_it_writes(engine: Engine, work: Work) -> None:
    turns: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: turns.append(arguments[2]))
    claim = work.claim(JOB, lease_s=30.0, maximum_attempts=3)
    assert claim
    assert [text.split()[0] for text in turns] == ["UPDATE", "SELECT"]
    turns.clear()
    work.finish(claim, [make_object(UID, JOB, "key")], [DESTINATION])
    assert [text.split()[0] for text in turns] == ["UPDATE", "INSERT", "INSERT"]
    assert [entry.object.job_id for entry in Deliveries(engine).claim(DESTINATION, lease_s=30.0)] == [JOB]


def test_a_job_whose_attempts_are_used_up_fails_and_its_late_worker_writes_nothing(engine: Engine, work: Work) -> None:
    now = time.time()
    late = None
    for attempt in range(3):
        later = Work(engine, lambda attempt=attempt: now + 60.0 * attempt)
        late = later.claim(JOB, lease_s=30.0, maximum_attempts=3)
        assert late
    assert Work(engine, lambda: now + 300.0).claim(JOB, lease_s=30.0, maximum_attempts=3) is None
    (report,) = Reports(engine).jobs()
    assert (report.job.state, report.job.attempts) == (JobState.FAILED, 3)
    assert late
    with pytest.raises(LeaseLostError):
        work.finish(late, [], [])


def test_an_instance_beyond_two_gib_is_recorded_in_a_ledger_of_the_schema_before_too(postgresql_url: str) -> None:
    engine = open_database(postgresql_url)
    migrate_to(engine, "0002")
    with engine.begin() as connection:
        for table in ("instances", "objects"):
            connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN size TYPE integer"))
    engine.dispose()
    engine = open_database(postgresql_url)
    large = replace(make_instance(UID, "key", "0" * 64), size=5 << 30)
    arrivals = Arrivals(engine)
    assert arrivals.record(large, association="a", association_expires_at=time.time() + 30) is Outcome.STORED
    assert [entry.size for entry in arrivals.unassigned()] == [5 << 30]
    engine.dispose()


def test_a_server_that_says_nothing_is_given_up_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(OperationalError, match="timeout"):
            open_database(f"postgresql+psycopg://user@127.0.0.1:{silent.getsockname()[1]}/pellucid")
        assert time.monotonic() - begun < 20
