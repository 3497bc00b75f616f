"""Kill -9, at random moments while studies flow and at named points."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from faults.archives import OrthancArchive
from faults.installation import ROLES
from faults.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from faults.report import Row

CRASH_POINTS = {
    "before-record": "crash-before-record",
    "after-record": "crash-after-record",
    "before-finish": "crash-before-finish",
    "after-send": "crash-after-send",
}
KILLS_PER_ROUND = 6
VICTIMS = (*ROLES, "all")
PATIENT = {"PELLUCID__WORKER__MAXIMUM_ATTEMPTS": "1000"}
"""Random kills may meet one study again and again; that attempts are capped is another row."""
_RECONCILED_EVERY = 20
"""Rounds; what went wrong is then known to within so many."""


def at_random(
    folder: Path,
    seed: int,
    *,
    kills: int,
    studies: int = 0,
    roles: Sequence[str] = VICTIMS,
) -> Iterator[Row]:
    """One row per role: studies flow, processes die, everything is reconciled. A long row comes again and again.

    Args:
        folder: for everything.
        seed: of the schedule.
        kills: how often something is killed, over all roles.
        studies: how many flow meanwhile, over all roles; 0 for half as many.
        roles: whose processes.
    """
    each = max(1, kills // len(roles))
    films = max(1, (studies or kills // 2) // len(roles))
    with Lab(folder, OrthancArchive(folder / "orthanc"), seed=seed, settings=PATIENT) as lab:
        for role in roles:
            row = lab.row(f"kill -9 {role}")
            died = flowed = 0
            rounds = math.ceil(each / KILLS_PER_ROUND)
            for number in range(rounds):
                some = films * (number + 1) // rounds - flowed
                flowed += some
                died += _round(lab, row, role, films=some, kills=min(KILLS_PER_ROUND, each - number * KILLS_PER_ROUND))
                row.notes = [f"{_kills_so_far(number, each)} kills, {died} processes, over {flowed} studies"]
                if number % _RECONCILED_EVERY == _RECONCILED_EVERY - 1:
                    yield lab.close(row)
                    if not row.passed:
                        break
            row.notes = row.notes[:1]
            yield lab.close(row)
        orphans = lab.pellucid.orphans()
        if orphans:
            row.wrong(f"{len(orphans)} processes outlived the one that started them")


def _round(lab: Lab, row: Row, role: str, *, films: int, kills: int) -> int:
    """Let films flow, kill meanwhile, wait until all is done; return how many processes died."""
    flow = lab.modality.flow(films, lab.rng)
    died = 0
    for _ in range(kills):
        time.sleep(lab.rng.uniform(0.05, 1.5))
        died += lab.pellucid.kill(role, chosen=lab.rng.randrange(10))
    killed = time.monotonic()
    flow.join()
    lab.recover(row, since=killed)
    return died


def _kills_so_far(number: int, each: int) -> int:
    return min(each, (number + 1) * KILLS_PER_ROUND)


def at_points(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """One row per named point: the process dies exactly there, once in each trial."""
    faults = tuple(CRASH_POINTS.values())
    with Lab(folder, OrthancArchive(folder / "orthanc"), seed=seed, faults=faults) as lab:
        for point in CRASH_POINTS:
            row = lab.row(f"kill -9 {point}")
            for _ in range(trials):
                order = lab.pellucid.crashes / point
                order.touch()
                (film,) = lab.modality.films(1)
                begun = time.monotonic()
                lab.modality.send(film)
                lab.recover(row, since=begun)
                if order.exists():
                    row.wrong("nothing reached this point")
                    order.unlink()
            yield lab.close(row)
