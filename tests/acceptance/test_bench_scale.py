"""The bench of many workers, with few: what it measures is real, whatever the machine is busy with."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from click.testing import CliRunner
from sqlalchemy import select

from service.ledger import schema
from service.ledger.database import open_database
from service.records import JobState
from workers.bench_books import count_jobs, fill
from workers.bench_scale import scale

if TYPE_CHECKING:
    import pytest


def test_it_counts_what_two_workers_do(redis_url: str, postgresql_url: str) -> None:
    arguments = ["--real", "1", "--workers", "1,2", "--sleep", "0.2", "--ledger", "150", "--json"]
    command = [sys.executable, "-c", "from service.cli import main; main()", "bench", "scale", *arguments]
    command += ["--database-url", postgresql_url, "--broker-url", redis_url]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["workers"] for row in rows] == [1, 1, 2, 2, 0]
    assert [row["model"] for row in rows] == ["pneumonia-compact", "sleeps", "sleeps", "none", "none"]
    for row in rows:
        assert {"workers", "jobs_per_s", "efficiency", "ledger_jobs", "cost_per_job_ms"} <= set(row)
        assert row["jobs_per_s"] > 0
    assert rows[1]["jobs_per_s"] <= 5.0
    assert rows[-1]["ledger_jobs"] >= 150
    engine = open_database(postgresql_url)
    with engine.connect() as connection:
        states = set(connection.execute(select(schema.jobs.c.state)).scalars())
        attempts = set(connection.execute(select(schema.jobs.c.attempts)).scalars())
    engine.dispose()
    assert states == {JobState.DONE}
    assert attempts == {1}


def test_books_are_filled_up_to_a_number(tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('books') / 'ledger.sqlite'}")
    fill(engine, 40)
    fill(engine, 30)
    assert count_jobs(engine) == 40
    fill(engine, 70)
    assert count_jobs(engine) == 70
    engine.dispose()


def test_a_list_that_is_none_is_refused() -> None:
    done = CliRunner().invoke(scale, ["--workers", "one"])
    assert done.exit_code == 2
