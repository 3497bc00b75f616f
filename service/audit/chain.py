"""An append-only log whose records hold the hash of the one before: a change anywhere shows.

One folder, in segments of one day each; `head` names the last record, so that a cut end shows too. What a
thief of the whole machine rewrites from the first record on, only copies elsewhere can tell: the forwarded
syslog messages carry number and hash of each record.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from service.files import make_directory
from service.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

GENESIS = "0" * 64
_SEGMENT = re.compile(r"[0-9]{6}\.log")
_FIELDS = ("number", "at", "kind", "study", "job", "message", "note", "previous")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of the log."""

    number: int
    """From 1, without gaps."""
    at: str
    """UTC, ISO 8601."""
    kind: str
    study: str
    """Study Instance UID, or empty."""
    job: str
    """Job id, or empty."""
    message: str
    """The AuditMessage (PS3.15 section A.5)."""
    note: str
    """What was found when this record was written, for example the torn end that a crash left."""
    previous: str
    """Hash of the record before; zeros for the first."""
    hash: str = ""
    """SHA-256 of all of the above."""

    def sealed(self) -> Record:
        """Return it with its hash."""
        content = json.dumps([getattr(self, name) for name in _FIELDS], ensure_ascii=True, separators=(",", ":"))
        return replace(self, hash=hashlib.sha256(content.encode()).hexdigest())

    def line(self) -> bytes:
        """Return the one way to write it."""
        return json.dumps(asdict(self), ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What somebody wants to have written; the log adds number, time and hashes."""

    kind: str
    message: str
    study: str
    job: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far something got: behind record `number`."""

    number: int = 0
    hash: str = GENESIS
    segment: int = 0
    offset: int = 0

    def text(self) -> bytes:
        """Return it in a fixed width, so that it is overwritten in one piece."""
        return f"{self.number:015d} {self.hash} {self.segment:06d} {self.offset:015d}\n".encode()


@dataclass(frozen=True, kw_only=True)
class _End:
    place: Place
    day: str = ""
    """Of its segment; empty: the next record begins a new one."""
    remark: str = ""


def read_place(path: Path) -> Place | None:
    """Read a place; None when there is none or it is damaged."""
    try:
        number, digest, segment, offset = path.read_text(encoding="ascii").split()
        return Place(number=int(number), hash=digest, segment=int(segment), offset=int(offset))
    except (OSError, ValueError):
        return None


def write_place(path: Path, place: Place) -> None:
    """Overwrite a place (0600)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, place.text(), 0)
    finally:
        os.close(descriptor)


class AuditLog:
    """The log of one folder; any number of processes may append."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._head = folder / "head"
        self._together = Together(self._append_all)

    def append(self, *, kind: str, message: str, study: str = "", job: str = "", note: str = "") -> Record:
        """Write a record and put it on the disk.

        Raises:
            OSError: it could not be written; the log is as before.
        """
        return self._together.do(Entry(kind=kind, message=message, study=study, job=job, note=note))

    def _append_all(self, entries: Sequence[Entry]) -> list[Record]:
        """Write records for entries of several threads, with one wait for the disk."""
        make_directory(self.folder)
        with self.locked():
            end = self._end()
            at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
            records: list[Record] = []
            previous, remark = end.place.hash, end.remark
            for number, entry in enumerate(entries, start=end.place.number + 1):
                values = {**asdict(entry), "note": entry.note or remark}
                records.append(Record(number=number, at=at, previous=previous, **values).sealed())
                previous, remark = records[-1].hash, ""
            self._write(records, end)
            return records

    def segments(self) -> list[Path]:
        """The files of the log, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _SEGMENT.fullmatch(path.name))

    def records(self, after: Place | None = None, *, pass_damage: bool = False) -> Iterator[tuple[Record, Place]]:
        """Read what is finished, with the place behind each record.

        Raises:
            ValueError: a line is no record, and `pass_damage` does not pass over it.
        """
        start = after or Place()
        for path in self.segments():
            segment = int(path.stem)
            if segment >= start.segment:
                yield from _records_of(path, start.offset if segment == start.segment else 0, pass_damage=pass_damage)

    def last_of(self, segment: Path) -> Place:
        """Find the last record of a segment.

        Raises:
            ValueError: a line of it is no record.
        """
        last = Place()
        for _, last in _records_of(segment, 0):  # noqa: B007 -- the last one is wanted
            pass
        return last

    def head(self) -> Place | None:
        """The last record, as noted apart from the log."""
        return read_place(self._head)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads from appending."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _end(self) -> _End:
        """Find the last finished record. Behind damage a new segment begins: the log goes on, `verify` tells."""
        place = self.head() or Place()
        try:
            for _, behind in self.records(after=place):
                place = behind
            size = self._segment(place.segment).stat().st_size if place.segment else 0
            day = self._day_of(place.segment) if place.segment else ""
        except (ValueError, FileNotFoundError):
            size, day = -1, ""
        if size < place.offset:
            newest = max((int(path.stem) for path in self.segments()), default=0)
            return _End(place=replace(place, segment=newest), remark="the log before this was damaged")
        # A crash or a full disk may leave a day without one finished record: `_write` begins its segment anew.
        begun = self._segment(place.segment + 1)
        torn = size - place.offset + (begun.stat().st_size if begun.exists() else 0)
        return _End(place=place, day=day, remark=f"an unfinished record of {torn} bytes was dropped" if torn else "")

    def _write(self, records: Sequence[Record], end: _End) -> None:
        segment, offset = end.place.segment, end.place.offset
        if end.day != records[0].at[:10]:
            segment, offset = segment + 1, 0
        lines = b"".join(record.line() for record in records)
        descriptor = os.open(self._segment(segment), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            # Drops what a crash left unfinished; nobody was told that it had been written.
            os.ftruncate(descriptor, offset)
            written = 0
            while written < len(lines):
                written += os.pwrite(descriptor, lines[written:], offset + written)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, offset)
            raise
        finally:
            os.close(descriptor)
        last = records[-1]
        place = Place(number=last.number, hash=last.hash, segment=segment, offset=offset + len(lines))
        write_place(self._head, place)

    def _day_of(self, segment: int) -> str:
        return next((record.at[:10] for record, _ in _records_of(self._segment(segment), 0)), "")

    def _segment(self, number: int) -> Path:
        return self.folder / f"{number:06d}.log"


def _records_of(path: Path, offset: int, *, pass_damage: bool = False) -> Iterator[tuple[Record, Place]]:
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = parse(line)
            except ValueError:
                if pass_damage:
                    continue
                raise
            yield record, Place(number=record.number, hash=record.hash, segment=int(path.stem), offset=offset)


def parse(line: bytes) -> Record:
    """Read one line.

    Raises:
        ValueError: it is no record, or not written the one way.
    """
    try:
        record = Record(**json.loads(line))
    except (TypeError, ValueError):
        raise ValueError("is no audit record") from None
    if record.line() != line:
        raise ValueError("is not written as records are")
    return record
