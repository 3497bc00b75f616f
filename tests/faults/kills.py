"""Kill -9, at random moments while studies flow and at named points."""

from __future__ import annotations

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
STUDIES_PER_ROUND = 3
PATIENT = {"PELLUCID__WORKER__MAXIMUM_ATTEMPTS": "50"}
"""Random kills may meet one study again and again; that attempts are capped is another row."""


def at_random(
    folder: Path, seed: int, *, trials: int, roles: Sequence[str] = (*ROLES, "all"), kills_per_trial: int = 2
) -> Iterator[Row]:
    """One row per role: studies flow, processes die, everything is reconciled."""
    with Lab(folder, OrthancArchive(folder / "orthanc"), seed=seed, settings=PATIENT) as lab:
        for role in roles:
            row = lab.row(f"kill -9 {role}")
            kills = 0
            for _ in range(trials):
                flow = lab.modality.flow(STUDIES_PER_ROUND, lab.rng)
                for _ in range(kills_per_trial):
                    time.sleep(lab.rng.uniform(0.05, 1.2))
                    kills += lab.pellucid.kill(role, chosen=lab.rng.randrange(10))
                killed = time.monotonic()
                flow.join()
                lab.recover(row, since=killed)
            row.notes.append(f"{kills} processes killed over {trials * STUDIES_PER_ROUND} studies")
            yield lab.close(row)
        orphans = lab.pellucid.orphans()
        if orphans:
            row.wrong(f"{len(orphans)} processes outlived the one that started them")


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
