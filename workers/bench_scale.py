"""`pellucid bench scale`: how much do more workers do, and are ledger, queue and spool the limit when there are many?

A few workers are the real thing: `pellucid worker` with the default pipeline on phantom films, one thread each. The
many are real Celery workers over Redis and PostgreSQL, with the ledger's claims, leases and fencing, the spool and
the outbox; their model sleeps, so that they fit on a small machine.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.intake import new_job
from service.ledger.arrivals import Arrival, Arrivals
from service.ledger.database import open_database
from service.ledger.delivery import Deliveries
from service.ledger.work import Work
from service.observe import configure_logging
from service.outbox import open_outbox
from service.pipelines import load_pipelines
from service.queue import enqueue, make_app
from service.settings import load_settings
from service.spool import open_spool
from workers.bench_books import (
    DESTINATION,
    OBJECT_BYTES,
    STUDY,
    count_jobs,
    fill,
    make_instance,
    make_job,
    settle,
    unfinished,
)
from workers.phantom.files import write_samples
from workers.sandbox import end, wait_until
from workers.servers import postgresql_server, redis_server
from workers.sleeping_worker import SleepingRunner, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from service.ledger.creation import NewJob
    from service.records import Instance
    from service.settings import Settings

JOBS_PER_WORKER = 8
_COST_JOBS = 100
_FILMS = 4


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement. `workers` 0 stands for the cost of one job's way through the books."""

    workers: int
    model: str
    """What a job computes: the name of a model package, `sleeps`, or `none`."""
    sleep_s: float
    jobs: int
    jobs_per_s: float
    efficiency: float
    """Throughput per worker, against one worker."""
    ledger_jobs: int
    """Jobs in the ledger before."""
    cost_per_job_ms: float
    """Wall-clock time per job and worker beyond the model's sleep."""


@click.command()
@click.option("--workers", "counts", default="1,2,4,8,16,32", show_default=True, help="Numbers of workers.")
@click.option("--real", default="1,2", show_default=True, help="Numbers of workers with the default pipeline's model.")
@click.option("--sleep", default=1.0, show_default=True, help="What the model takes, in seconds.")
@click.option("--ledger", default="100,1000,10000,100000", show_default=True, help="Jobs in the ledger before.")
@click.option("--database-url", default="", help="PostgreSQL to use; default: a cluster of its own.")
@click.option("--broker-url", default="", help="Redis to use; default: one of its own.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def scale(  # noqa: PLR0917 -- click passes them by name
    counts: str, real: str, sleep: float, ledger: str, database_url: str, broker_url: str, as_json: bool
) -> None:
    """Throughput with many workers, and the cost of a job with many jobs in the ledger."""
    few, many, filled = _numbers(real), _numbers(counts), _numbers(ledger)
    configure_logging("bench")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pellucid-scale-")))
        database = database_url or stack.enter_context(postgresql_server(folder / "postgresql"))
        broker = broker_url or stack.enter_context(redis_server(folder / "redis"))
        bench = Bench(folder / "state", database=database, broker=broker)
        # Before the others, which leave jobs of their own behind.
        costs = [bench.cost(jobs) for jobs in sorted(filled)]
        rows = bench.real_workers(few)
        rows += bench.many_workers(many, sleep)
        rows += bench.many_workers([max(many)], 0.0)
        rows += costs
        bench.close()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        click.echo("  ".join(f"{name} {value}" for name, value in asdict(row).items()))


class Bench:
    """A ledger, a queue, a spool and an outbox."""

    def __init__(self, folder: Path, *, database: str, broker: str) -> None:
        self._variables = {
            "PELLUCID__STATE__DIRECTORY": json.dumps(str(folder)),
            "PELLUCID__LEDGER__DATABASE_URL": json.dumps(database),
            "PELLUCID__QUEUE__BROKER_URL": json.dumps(broker),
        }
        settings = load_settings(None, self._variables)
        self._engine = open_database(settings.database_url)
        self._app = make_app(settings)
        self._arrivals, self._work = Arrivals(self._engine), Work(self._engine)
        self._spool, self._outbox = open_spool(settings), open_outbox(settings)
        self._spool.prepare()
        self._number = 0
        self._log = folder / "workers.log"

    def close(self) -> None:
        """Let the database go."""
        self._engine.dispose()

    def real_workers(self, counts: Sequence[int]) -> list[Row]:
        """Measure throughput with each number of `pellucid worker` processes, one thread each, on phantom films."""
        with tempfile.TemporaryDirectory(prefix="pellucid-films-") as folder:
            films = [path.read_bytes() for path in write_samples(Path(folder), count=_FILMS, seed=11)]
        entry = load_pipelines(self._settings())[0]

        def make(instance: Instance) -> NewJob:
            return new_job(entry, [instance])

        rows: list[Row] = []
        for count in counts:
            before, jobs = count_jobs(self._engine), count * JOBS_PER_WORKER
            with self._workers(count):
                # Each worker does some first: only then all of them have loaded their model.
                self._run([self._create(films, make) for _ in range(count * 2)], timeout_s=300)
                seconds = self._run([self._create(films, make) for _ in range(jobs)], timeout_s=600)
            rows.append(_row(rows, count, entry.pipeline.model, sleep_s=0.0, jobs=jobs, seconds=seconds, before=before))
        return rows

    def many_workers(self, counts: Sequence[int], sleep_s: float) -> list[Row]:
        """Measure throughput with each number of workers; the first one is the yardstick."""
        rows: list[Row] = []
        for count in counts:
            jobs = count * (JOBS_PER_WORKER if sleep_s else 40)
            before = count_jobs(self._engine)
            seconds = self._throughput(count, jobs, sleep_s)
            model = "sleeps" if sleep_s else "none"
            rows.append(_row(rows, count, model, sleep_s=sleep_s, jobs=jobs, seconds=seconds, before=before))
        return rows

    def cost(self, ledger_jobs: int) -> Row:
        """Measure the way of a job through all books, one at a time, with so many jobs in the ledger."""
        fill(self._engine, ledger_jobs)
        settle(self._engine)
        before = count_jobs(self._engine)
        runner = SleepingRunner(self._settings(), 0.0)
        deliveries = Deliveries(self._engine)
        begun = time.perf_counter()
        for _ in range(_COST_JOBS):
            job = self._create()
            enqueue(self._app, job, "routine")
            self._work.wake(job)
            runner.run(job)
            for delivery in deliveries.claim(DESTINATION, lease_s=60):
                deliveries.delivered(delivery)
        seconds = time.perf_counter() - begun
        runner.engine.dispose()
        with self._app.connection_for_write() as connection:
            connection.default_channel.queue_purge("routine")
        return Row(
            workers=0,
            model="none",
            sleep_s=0.0,
            jobs=_COST_JOBS,
            jobs_per_s=round(_COST_JOBS / seconds, 2),
            efficiency=1.0,
            ledger_jobs=before,
            cost_per_job_ms=round(seconds / _COST_JOBS * 1000, 2),
        )

    def _throughput(self, workers: int, jobs: int, sleep_s: float) -> float:
        """Return seconds from the first job's start to the last one's end, workers being up before."""
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=serve, args=(self._variables, sleep_s)) for _ in range(workers)]
        # A forked child must not inherit an open connection.
        self._engine.dispose()
        for child in children:
            child.start()
        try:
            # Each worker does one job first: only then all of them are known to be up.
            self._run([self._create() for _ in range(workers * 2)], timeout_s=300)
            names = [self._create() for _ in range(jobs)]
            return self._run(names, timeout_s=600)
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.join(timeout=30)

    @contextmanager
    def _workers(self, count: int) -> Iterator[None]:
        """Run so many workers, each a process as an operator starts it."""
        environment = {**os.environ, **self._variables, "PELLUCID__WORKER__THREADS": "1"}
        command = [sys.executable, "-c", "from service.cli import main; main()", "worker"]
        with self._log.open("ab") as log:
            processes = [
                subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT) for _ in range(count)
            ]
        try:
            yield
        finally:
            for process in processes:
                end(process)

    def _run(self, names: list[str], *, timeout_s: float) -> float:
        begun = time.perf_counter()
        for name in names:
            enqueue(self._app, name, "routine")
        wait_until(lambda: unfinished(self._engine) == 0, timeout_s=timeout_s, what="the jobs did not end")
        return time.perf_counter() - begun

    def _settings(self) -> Settings:
        return load_settings(None, self._variables)

    def _create(self, contents: Sequence[bytes] = (), make: Callable[[Instance], NewJob] | None = None) -> str:
        """Let one instance arrive and make a job of it, as listener and intake do."""
        self._number += 1
        uid = f"2.25.{os.getpid()}{self._number:08d}"
        incoming = self._spool.receive()
        content = contents[self._number % len(contents)] if contents else b"x" * OBJECT_BYTES
        incoming.write(content)
        key = self._spool.keep(incoming, study_instance_uid=STUDY, sop_instance_uid=uid)
        instance = make_instance(uid, key, incoming.sha256, len(content))
        arrival = Arrival(instance=instance, association="bench", association_expires_at=time.time() + 60)
        self._arrivals.record_all([arrival])
        job = make(instance) if make else make_job(uid)
        self._work.assign([job], [instance])
        return job.id


def _row(
    rows: Sequence[Row], workers: int, model: str, *, sleep_s: float, jobs: int, seconds: float, before: int
) -> Row:
    """Describe one throughput; the first of `rows` is the yardstick."""
    alone = rows[0].jobs_per_s / rows[0].workers if rows else jobs / seconds / workers
    return Row(
        workers=workers,
        model=model,
        sleep_s=sleep_s,
        jobs=jobs,
        jobs_per_s=round(jobs / seconds, 2),
        efficiency=round(jobs / seconds / workers / alone, 3),
        ledger_jobs=before,
        cost_per_job_ms=round((seconds * workers / jobs - sleep_s) * 1000, 2),
    )


def _numbers(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{text}' is no list of numbers like 1,2,4") from None
    if not found or min(found) < 1:
        raise click.BadParameter(f"'{text}': each number is at least 1")
    return found
