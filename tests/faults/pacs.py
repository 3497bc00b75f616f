"""A PACS that is down, refuses, is slow, aborts, loses its answer, forgets, or keeps other bytes."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import select

from faults.archives import FaultyArchive
from faults.lab import Lab
from service.ledger import schema
from service.ledger.work import Work
from service.records import DeliveryState
from workers.sandbox import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from faults.report import Row

PASSING: dict[str, str | int] = {
    "refuses 0xA700": 0xA700,
    "slow": "slow",
    "aborts": "abort",
    "stores, loses the answer": "lose-answer",
    "says success, keeps nothing": "forget",
}
"""After these the object is sent again until it is there."""
FINAL: dict[str, int] = {"refuses 0xA900": 0xA900, "refuses 0xC000": 0xC000, "refuses 0x0122": 0x0122}
"""These are over after one try: the bytes will not be others tomorrow."""
_ENOUGH_TRIES = 2


def misbehaving(folder: Path, seed: int, *, trials: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """One row per misbehaviour."""
    archive = FaultyArchive()
    read_back = {"PELLUCID__PEERS__PACS__RETRIEVE": '"get"'}
    with Lab(folder, archive, seed=seed, settings=read_back, confirm="retrieve") as lab:
        wanted = lambda name: not only or name in only  # noqa: E731
        if wanted("down"):
            yield _down(lab, archive, trials)
        for name in filter(wanted, PASSING):
            yield _passing(lab, archive, name, trials)
        for name in filter(wanted, FINAL):
            yield _final(lab, archive, name, trials)
        if wanted("warns 0xB000"):
            yield _warning(lab, archive, trials)
        # The last one: what it leaves behind would be counted in every row after it.
        if wanted("keeps other bytes"):
            yield _lying(lab, archive, trials)


def _down(lab: Lab, archive: FaultyArchive, trials: int) -> Row:
    row = lab.row("PACS down")
    for _ in range(trials):
        archive.stop()
        _send(lab)
        wait_for_tries(lab)
        archive.begin()
        lab.recover(row)
    return lab.close(row)


def _passing(lab: Lab, archive: FaultyArchive, name: str, trials: int) -> Row:
    row = lab.row(f"PACS {name}")
    for _ in range(trials):
        before = len(archive.requests)
        archive.behaviour = PASSING[name]
        _send(lab)
        wait_until(lambda: len(archive.requests) >= before + 2, timeout_s=60, what="the PACS was not asked")  # noqa: B023
        if archive.behaviour != "slow":
            time.sleep(1.0)
        archive.behaviour = "keep"
        lab.recover(row)
        row.notes.append(f"{len(archive.requests) - before} requests for 2 objects")
    return lab.close(row)


def _final(lab: Lab, archive: FaultyArchive, name: str, trials: int) -> Row:
    row = lab.row(f"PACS {name}")
    for _ in range(trials):
        before = len(archive.requests)
        archive.behaviour = FINAL[name]
        _send(lab)
        lab.recover(row)
        time.sleep(2.0)
        asked = Counter(archive.requests[before:])
        if len(asked) != 2 or max(asked.values()) > 1:
            row.wrong(f"asked {sum(asked.values())} times for {len(asked)} objects")
        archive.behaviour = "keep"
        aside = len(lab.balance().set_aside)
        if aside != len(asked):
            row.wrong(f"{aside} objects are set aside, not {len(asked)}")
        _retry_rejected(lab)
        lab.auditor.wait_settled(lab.modality.acknowledged, timeout_s=60)
    lab.close(row)
    row.notes.append("set aside after one try; delivered after `pellucid retry`")
    return row


def _warning(lab: Lab, archive: FaultyArchive, trials: int) -> Row:
    row = lab.row("PACS warns 0xB000")
    for _ in range(trials):
        before = len(archive.requests)
        archive.behaviour = 0xB000
        _send(lab)
        lab.recover(row)
        archive.behaviour = "keep"
        if len(archive.requests) - before != 2:
            row.wrong(f"{len(archive.requests) - before} requests for 2 objects")
    return lab.close(row)


def _lying(lab: Lab, archive: FaultyArchive, trials: int) -> Row:
    """The PACS answers success, finds the object when asked, and holds other bytes: only reading back shows it."""
    row = lab.row("PACS says success, keeps other bytes")
    aside = 0
    for _ in range(trials):
        before = len(archive.requests)
        archive.behaviour = "other-bytes"
        _send(lab)
        lab.recover(row)
        time.sleep(1.0)
        archive.behaviour = "keep"
        aside += 2
        if len(archive.requests) - before != 2:
            row.wrong(f"{len(archive.requests) - before} requests for 2 objects")
        found = lab.balance().set_aside
        if len(found) != aside or not all("SeriesDescription (0008,103E)" in entry for entry in found):
            row.wrong(f"{len(found)} objects are set aside with what differs, not {aside}")
    return lab.close(row)


def _send(lab: Lab) -> None:
    (film,) = lab.modality.films(1)
    lab.modality.send(film)


def wait_for_tries(lab: Lab) -> None:
    """Wait until something was tried again."""

    def tried() -> bool:
        with lab.pellucid.reports.reading() as connection:
            waiting = select(schema.deliveries.c.attempts).where(schema.deliveries.c.state == DeliveryState.PENDING)
            return max(connection.execute(waiting).scalars(), default=0) >= _ENOUGH_TRIES

    wait_until(tried, timeout_s=90, what="the sender did not try")


def _retry_rejected(lab: Lab) -> None:
    engine = lab.pellucid.reports.engine
    with lab.pellucid.reports.reading() as connection:
        of_job = (
            select(schema.objects.c.job_id)
            .join_from(schema.deliveries, schema.objects)
            .where(schema.deliveries.c.state == DeliveryState.REJECTED)
            .distinct()
        )
        jobs = list(connection.execute(of_job).scalars())
    for job in jobs:
        Work(engine).retry(job)
