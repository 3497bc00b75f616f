"""Checks the audit log: altered, removed, inserted or reordered records show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from service.audit.chain import GENESIS, AuditLog, Record, parse, read_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.audit.chain import Place

_CLOCKS_DIFFER_BY = timedelta(minutes=1)
PURGED = "purged"
"""Kind of the record that says where the chain begins after old segments were removed by retention."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a check found."""

    records: int
    last_hash: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """True when nothing was altered, removed or reordered."""
        return not self.problems


def anchor(number: int, digest: str) -> str:
    """Write down behind which record the chain begins."""
    return json.dumps({"number": number, "hash": digest})


def verify(log: AuditLog, *, known_hash: str = "", first_arrival: datetime | None = None) -> Verification:
    """Check the whole log.

    Args:
        log: the log.
        known_hash: hash of a record that was seen elsewhere, for example in a syslog message: it must be there.
        first_arrival: of an instance, as the ledger knows it: a log that begins later was emptied.
    """
    check = _Check()
    # Read first: records that are appended meanwhile are behind it.
    head = log.head()
    for path in log.segments():
        check.begin(int(path.stem))
        for number, line in enumerate(_lines(path), start=1):
            check.take(f"{path.name} line {number}", line)
    check.compare(read_place(log.folder / "forwarded"))
    check.begins_before(first_arrival)
    return check.result(head=(head.number, head.hash) if head else None, known_hash=known_hash)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


class _Check:
    def __init__(self) -> None:
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._hashes: dict[int, str] = {}
        self._first: Record | None = None
        self._last: Record | None = None
        self._anchors: set[tuple[int, str]] = {(0, GENESIS)}
        self._segment = 0

    def begin(self, segment: int) -> None:
        if self._segment and segment != self._segment + 1:
            self._problems.append(f"segment {self._segment + 1:06d} is missing")
        self._segment = segment

    def take(self, place: str, line: bytes) -> None:
        if not line.endswith(b"\n"):
            self._notes.append(f"{place}: unfinished, a process was ended while it wrote; the next record drops it")
            return
        try:
            record = parse(line)
        except ValueError as error:
            self._problems.append(f"{place} {error}")
            return
        if record.sealed().hash != record.hash:
            self._problems.append(f"{place}: record {record.number} was altered")
        if self._last is None:
            self._first = record
        elif record.number != self._last.number + 1 or record.previous != self._last.hash:
            self._problems.append(f"{place}: record {record.number} does not follow record {self._last.number}")
        if record.kind == PURGED:
            self._note_anchor(record)
        self._hashes[record.number] = record.hash
        self._last = record

    def _note_anchor(self, record: Record) -> None:
        start = json.loads(record.note) if record.note.startswith("{") else {}
        self._anchors.add((start.get("number", 0), start.get("hash", "")))

    def compare(self, forwarded: Place | None) -> None:
        """Look for the last record that the collector has: whoever cuts the end and mends `head` misses it easily."""
        first = self._first.number if self._first else 1
        if forwarded and forwarded.number >= first and self._hashes.get(forwarded.number) != forwarded.hash:
            self._problems.append(f"record {forwarded.number}, which syslog has, is missing or altered")

    def begins_before(self, arrival: datetime | None) -> None:
        """Compare with the ledger: every process notes its start before it does anything."""
        if arrival is None or (self._first and self._first.number > 1):
            return  # where old records were purged, an anchor says so
        begins = datetime.fromisoformat(self._first.at) if self._first else None
        if begins is None or begins > arrival + _CLOCKS_DIFFER_BY:
            when = f"begins at {begins:%Y-%m-%d %H:%M:%S}" if begins else "is empty"
            self._problems.append(
                f"records are missing: the log {when}, and the ledger knows an instance of {arrival:%Y-%m-%d %H:%M:%S}"
            )

    def result(self, *, head: tuple[int, str] | None, known_hash: str) -> Verification:
        if self._first and (self._first.number - 1, self._first.previous) not in self._anchors:
            self._problems.append(f"records before {self._first.number} are missing, and no purge removed them")
        if head is None and self._last is not None:
            self._problems.append("the file head is missing or damaged")
        if head is not None and self._hashes.get(head[0]) != head[1]:
            self._problems.append(f"record {head[0]}, which the file head names, is missing or altered")
        if known_hash and known_hash not in self._hashes.values():
            self._problems.append("no record has the hash that was given")
        return Verification(
            records=len(self._hashes),
            last_hash=self._last.hash if self._last else "",
            problems=tuple(self._problems),
            notes=tuple(self._notes),
        )
