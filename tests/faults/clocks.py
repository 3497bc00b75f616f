"""A clock that is set by an hour or ten years while studies flow, and a PACS that is away for eight hours of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from faults.archives import FaultyArchive
from faults.lab import Lab
from faults.pacs import wait_for_tries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.report import Row

HOUR_S = 3600.0
JUMPS = {
    "an hour forth": HOUR_S,
    "an hour back": -HOUR_S,
    "ten years forth": 10 * 365.25 * 24 * HOUR_S,
    "ten years back": -10 * 365.25 * 24 * HOUR_S,
}
LONGEST_RETRY_S = 300.0
_BACKLOG = 4


def set_while_working(folder: Path, seed: int, *, trials: int) -> Iterator[Row]:
    """One row per jump, and the outage."""
    archive = FaultyArchive()
    patient = {"PELLUCID__SENDER__LONGEST_RETRY_S": str(LONGEST_RETRY_S)}
    with Lab(folder, archive, seed=seed, faults=["shifted-clock"], settings=patient) as lab:
        clock = _Clock(lab)
        for name, seconds in JUMPS.items():
            yield _jump(lab, clock, name, seconds, trials)
        yield _outage(lab, clock, archive, trials)


class _Clock:
    """Of every process of the installation; the campaign's own is left alone."""

    def __init__(self, lab: Lab) -> None:
        self._order = lab.pellucid.crashes / "clock"
        self._offset_s = 0.0

    def set(self, by_s: float) -> None:
        self._offset_s += by_s
        part = self._order.with_suffix(".part")
        part.write_text(str(self._offset_s))
        part.replace(self._order)


def _jump(lab: Lab, clock: _Clock, name: str, seconds: float, trials: int) -> Row:
    row = lab.row(f"clock set {name}")
    for _ in range(trials):
        flow = lab.modality.flow(3, lab.rng)
        time.sleep(lab.rng.uniform(0.2, 1.5))
        clock.set(seconds)
        jumped = time.monotonic()
        flow.join()
        lab.recover(row, since=jumped)
        clock.set(-seconds)
        lab.recover(row)
    return lab.close(row)


def _outage(lab: Lab, clock: _Clock, archive: FaultyArchive, trials: int) -> Row:
    """Eight hours pass on the clock; after the return one longest pause is enough for all, each object once."""
    row = lab.row("PACS away for 8 hours (by the clock)")
    for _ in range(trials):
        archive.stop()
        for film in lab.modality.films(_BACKLOG):
            lab.modality.send(film)
        for _ in range(8):
            wait_for_tries(lab)
            clock.set(HOUR_S)
            time.sleep(1.0)
        before = len(archive.requests)
        archive.begin()
        clock.set(LONGEST_RETRY_S)
        lab.recover(row)
        if len(archive.requests) - before != 2 * _BACKLOG:
            row.wrong(f"{len(archive.requests) - before} requests for {2 * _BACKLOG} objects")
    return lab.close(row)
