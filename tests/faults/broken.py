"""Deliberately broken builds: each must be caught, or the campaign proves nothing."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from faults.archives import FaultyArchive
from faults.brokers import RedisBroker
from faults.installation import LEASE_S
from faults.lab import Lab
from faults.stores import TWO_WORKERS, redelivered
from service.records import JobState
from workers.sandbox import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.report import Row


def _acknowledges_early(folder: Path, seed: int) -> Iterator[Row]:
    """The listener dies between its answer and the disk: only acknowledged instances can show it."""
    with Lab(folder, FaultyArchive(), seed=seed, faults=["acknowledge-early"]) as lab:
        row = lab.row("BROKEN: acknowledges before it is durable", must_be_caught=True)
        (film,) = lab.modality.films(1)
        lab.modality.send(film)
        lab.pellucid.kill("listener")
        lab.recover(row, timeout_s=15.0)
        yield lab.close(row)


def _without_lease(folder: Path, seed: int) -> Iterator[Row]:
    redis = RedisBroker(folder / "redis")
    settings = {"PELLUCID__QUEUE__BROKER_URL": json.dumps(redis.url)}
    try:
        with Lab(folder, FaultyArchive(), seed=seed, faults=["no-lease"], settings=settings, roles=TWO_WORKERS) as lab:
            yield redelivered(lab, 1, must_be_caught=True, name="BROKEN: no lease")
    finally:
        redis.stop()


def _with_random_uids(folder: Path, seed: int) -> Iterator[Row]:
    """A repeated task must make the same objects again: the worker dies after the first ones are in the outbox."""
    with Lab(folder, FaultyArchive(), seed=seed, faults=["random-uids", "crash-before-finish"]) as lab:
        row = lab.row("BROKEN: random UIDs", must_be_caught=True)
        (lab.pellucid.crashes / "before-finish").touch()
        (film,) = lab.modality.films(1)
        begun = time.monotonic()
        lab.modality.send(film)
        lab.recover(row, since=begun)
        yield lab.close(row)


def _without_sweep(folder: Path, seed: int) -> Iterator[Row]:
    """The embedded queue does not deliver a message again whose worker died."""
    with Lab(folder, FaultyArchive(), seed=seed, faults=["no-sweep", "crash-before-finish"]) as lab:
        row = lab.row("BROKEN: no sweep", must_be_caught=True)
        (lab.pellucid.crashes / "before-finish").touch()
        (film,) = lab.modality.films(1)
        lab.modality.send(film)
        wait_until(lambda: not (lab.pellucid.crashes / "before-finish").exists(), timeout_s=60, what="no worker died")
        running = lambda: lab.pellucid.reports.counts().get(JobState.RUNNING, 0)  # noqa: E731
        assert running()
        # Far longer than the sweep of the healthy build takes.
        lab.recover(row, timeout_s=LEASE_S + 20.0)
        yield lab.close(row)


BUILDS = {
    "early": _acknowledges_early,
    "lease": _without_lease,
    "uids": _with_random_uids,
    "sweep": _without_sweep,
}
"""One row each."""
