"""The ledger's database locked or restarted; the broker killed, emptied, frozen, or delivering twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from faults.archives import OrthancArchive
from faults.brokers import PostgresqlCluster, RedisBroker
from faults.installation import ROLES
from faults.lab import Lab
from service.queue import enqueue, make_app
from service.settings import load_settings
from workers.servers import postgresql_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.report import Row

TWO_WORKERS = (*ROLES, "worker")
LOCKED_S = 6.0
FROZEN_S = 8.0
IDLE_AT_MOST_S = 60.0
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
                yield redelivered(lab, trials)
                yield _postgresql_restarted(lab, cluster, trials)
        finally:
            redis.stop()
            cluster.stop()


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
        back = time.monotonic()
        flow.join()
        meanwhile.join()
        lab.recover(row, since=back)
    return _not_idle(lab.close(row))


def _redis_frozen(lab: Lab, redis: RedisBroker, trials: int) -> Row:
    row = lab.row(f"Redis frozen for {FROZEN_S:.0f} s")
    for _ in range(trials):
        flow = lab.modality.flow(2, lab.rng)
        time.sleep(lab.rng.uniform(0.2, 1.0))
        with redis.frozen():
            meanwhile = lab.modality.flow(2, lab.rng)
            time.sleep(FROZEN_S)
        thawed = time.monotonic()
        flow.join()
        meanwhile.join()
        lab.recover(row, since=thawed)
    return _not_idle(lab.close(row))


def _not_idle(row: Row) -> Row:
    if row.longest_recovery_s > IDLE_AT_MOST_S:
        row.wrong(f"work stood still for {row.longest_recovery_s:.0f} s after the broker was back")
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
