"""The ledger's database locked or restarted; the broker killed, emptied, frozen, or delivering twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, make_url, text

from faults.archives import OrthancArchive
from faults.brokers import PostgresqlCluster, RedisBroker
from faults.installation import ROLES
from faults.lab import Lab
from service.queue import enqueue, make_app
from service.settings import load_settings
from workers.sandbox import wait_until
from workers.servers import postgresql_server

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from faults.report import Row

TWO_WORKERS = (*ROLES, "worker")
LOCKED_S = 6.0
FROZEN_S = 60.0
FROZEN_BRIEFLY_S = 12.0
"""Longer than the broker's client waits for an answer; enough where each row runs once."""
RESUMED_S = 30.0
IDLE_AT_MOST_S = 60.0
_FLAPS = 4
_ENDED = re.compile(r"job [0-9a-f]+: done")
_LOCK = """
import sqlite3, sys
ledger = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
ledger.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
ledger.execute("ROLLBACK")
"""


def sqlite_locked(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """Another process holds the ledger's write lock while studies arrive."""
    with Lab(folder, OrthancArchive(folder / "orthanc"), seed=seed) as lab:
        row = lab.row(f"SQLite locked for {LOCKED_S:.0f} s")
        for _ in range(trials):
            flow = lab.modality.flow(2, lab.rng)
            time.sleep(lab.rng.uniform(0.0, 0.5))
            with _locked(lab.pellucid.settings.state.directory / "ledger.sqlite"):
                time.sleep(LOCKED_S)
            unlocked = time.monotonic()
            flow.join()
            lab.recover(row, since=unlocked)
        yield lab.close(row)


def redis_and_postgresql(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """One installation over both, with two workers."""
    redis = RedisBroker(folder / "redis")
    with postgresql_server(folder / "postgresql") as database:
        cluster = PostgresqlCluster(folder / "postgresql")
        try:
            settings = {
                "PELLUCID__LEDGER__DATABASE_URL": json.dumps(database),
                "PELLUCID__QUEUE__BROKER_URL": json.dumps(redis.url),
            }
            with Lab(
                folder / "state", OrthancArchive(folder / "orthanc"), seed=seed, settings=settings, roles=TWO_WORKERS
            ) as lab:
                yield _redis_emptied(lab, redis, trials)
                yield _redis_frozen(lab, redis, trials)
                yield _redis_flapping(lab, redis, trials)
                yield redelivered(lab, trials)
                yield _postgresql_restarted(lab, cluster, trials)
            # Another archive needs another ledger: the first one's results are not in it.
            settings["PELLUCID__LEDGER__DATABASE_URL"] = json.dumps(_another(database))
            with Lab(
                folder / "deaf", OrthancArchive(folder / "archive"), seed=seed, settings=settings, faults=["deaf"]
            ) as lab:
                yield _deaf(lab, min(trials, 3))
        finally:
            redis.stop()
            cluster.stop()


def _another(database: str) -> str:
    """Create an empty database beside `database` and return its URL."""
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE deaf"))
    engine.dispose()
    return make_url(database).set(database="deaf").render_as_string(hide_password=False)


def redelivered(
    lab: Lab, trials: int, *, must_be_caught: bool = False, name: str = "redelivery while tasks run"
) -> Row:
    """Every job is called several times while two workers are at it: nobody may begin it twice."""
    row = lab.row(name, must_be_caught=must_be_caught)
    app = make_app(load_settings(None, lab.pellucid.variables))
    for _ in range(trials):
        flow = lab.modality.flow(3, lab.rng)
        begun = time.monotonic()
        while flow.is_alive() or lab.pellucid.reports.counts().get("queued", 0):
            for report in lab.pellucid.reports.jobs(limit=6):
                enqueue(app, report.job.id, "routine")
            time.sleep(0.1)
        lab.recover(row, since=begun)
    lab.close(row)
    attempts = lab.auditor.attempts()
    twice = sum(count for number, count in attempts.items() if number > 1)
    row.duplicated += twice
    row.notes.append(f"attempts of jobs: {dict(Counter(attempts))}")
    return row


def _redis_emptied(lab: Lab, redis: RedisBroker, trials: int) -> Row:
    row = lab.row("Redis killed, restarted empty")
    for _ in range(trials):
        flow = lab.modality.flow(3, lab.rng)
        time.sleep(lab.rng.uniform(0.3, 1.5))
        redis.kill()
        meanwhile = lab.modality.flow(2, lab.rng)
        time.sleep(lab.rng.uniform(1.0, 3.0))
        redis.start()
        _resumed(lab, row, flow, meanwhile)
    return lab.close(row)


def _redis_frozen(lab: Lab, redis: RedisBroker, trials: int) -> Row:
    frozen_s = FROZEN_S if trials > 1 else FROZEN_BRIEFLY_S
    row = lab.row(f"Redis frozen for {frozen_s:.0f} s")
    for _ in range(trials):
        flow = lab.modality.flow(2, lab.rng)
        time.sleep(lab.rng.uniform(0.2, 1.0))
        with redis.frozen():
            meanwhile = lab.modality.flow(2, lab.rng)
            time.sleep(frozen_s)
        _resumed(lab, row, flow, meanwhile)
    return lab.close(row)


def _redis_flapping(lab: Lab, redis: RedisBroker, trials: int) -> Row:
    row = lab.row(f"Redis comes and goes {_FLAPS} times")
    for _ in range(trials):
        flow = lab.modality.flow(4, lab.rng)
        for _ in range(_FLAPS):
            time.sleep(lab.rng.uniform(0.3, 2.0))
            redis.kill()
            time.sleep(lab.rng.uniform(0.3, 2.0))
            redis.start()
        _resumed(lab, row, flow)
    return lab.close(row)


def _resumed(lab: Lab, row: Row, *flows: threading.Thread) -> None:
    """The broker is back: nothing stands still, and every worker takes work again."""
    back = time.monotonic()
    begun = _ended_jobs(lab)
    resumed = None
    while time.monotonic() - back < IDLE_AT_MOST_S:
        now = _ended_jobs(lab)
        if resumed is None and sum(now) > sum(begun):
            resumed = time.monotonic() - back
        if all(after > before for after, before in zip(now, begun, strict=True)):
            break
        for film in lab.modality.films(len(begun)):
            lab.modality.send(film)
        time.sleep(0.5)
    else:
        row.wrong(f"a worker was idle for {IDLE_AT_MOST_S:.0f} s after the broker was back")
    if resumed is None or resumed > RESUMED_S:
        row.wrong(f"work went on after {resumed or IDLE_AT_MOST_S:.0f} s")
    for flow in flows:
        flow.join()
    lab.recover(row, since=back)


def _ended_jobs(lab: Lab) -> list[int]:
    """Of each worker, as its log says."""
    return [len(_ENDED.findall(log)) for log in lab.pellucid.logs("worker")]


def _deaf(lab: Lab, trials: int) -> Row:
    """A worker that asks for nothing more, whatever the cause, is ended by its watchdog and started again."""
    row = lab.row("worker lives and consumes nothing")
    order = lab.pellucid.crashes / "deaf"
    for _ in range(trials):
        order.touch()
        (first,) = lab.modality.films(1)
        lab.modality.send(first)
        wait_until(lambda: not order.exists(), timeout_s=60, what="nobody became deaf")
        deaf = time.monotonic()
        (second,) = lab.modality.films(1)
        lab.modality.send(second)
        lab.recover(row, since=deaf)
    lab.close(row)
    if row.longest_recovery_s > IDLE_AT_MOST_S:
        row.wrong(f"work stood still for {row.longest_recovery_s:.0f} s")
    return row


def _postgresql_restarted(lab: Lab, cluster: PostgresqlCluster, trials: int) -> Row:
    row = lab.row("PostgreSQL restarted")
    for _ in range(trials):
        flow = lab.modality.flow(4, lab.rng)
        time.sleep(lab.rng.uniform(0.0, 0.5))
        cluster.restart(away_s=lab.rng.uniform(0.2, 2.0))
        back = time.monotonic()
        flow.join()
        lab.recover(row, since=back)
    return lab.close(row)


@contextmanager
def _locked(ledger: Path) -> Iterator[None]:
    command = [sys.executable, "-c", _LOCK, str(ledger)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        yield
        assert holder.stdin is not None
        holder.stdin.close()
