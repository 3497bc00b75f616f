"""Deletes what is older than the settings keep it. Never what a destination still waits for or a job still needs."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from service.audit.chain import Place, read_place
from service.ledger.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from service.audit.chain import AuditLog
    from service.audit.trail import Trail
    from service.outbox import Outbox
    from service.settings import Settings
    from service.spool import Spool

log = logging.getLogger(__name__)

DAY_S = 86_400.0
_ORPHAN_AFTER_S = DAY_S
"""A file that no row names is a crash's leaving; younger ones may be about to get their row."""


@dataclass(frozen=True, kw_only=True)
class Purge:
    """What was deleted, or would be."""

    instances: int = 0
    results: int = 0
    bytes: int = 0
    orphans: int = 0
    """Files that no row of the ledger names, left by a crash."""
    audit_segments: int = 0
    held: int = 0
    """Objects that are old enough and stay: a destination does not have them yet."""


class _Remove(Protocol):
    def __call__(self, key: str, *, since: float) -> int: ...


class Keeper:
    """Applies `[retention]` to one state folder and its ledger."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        spool: Spool,
        outbox: Outbox,
        audit_log: AuditLog,
        trail: Trail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings.retention
        self._waits_for_syslog = bool(settings.audit.syslog_host)
        self._ledger = Retention(engine, clock)
        self._spool = spool
        self._outbox = outbox
        self._audit_log = audit_log
        self._trail = trail
        self._clock = clock

    def look(self) -> Purge:
        """Say what `purge` would delete."""
        instances = self._ledger.expired_instances(before=self._before(self._settings.instances_days))
        aside = self._ledger.expired_set_aside(before=self._before(self._settings.instances_days))
        results = self._ledger.expired_objects(before=self._before(self._settings.results_days))
        return Purge(
            instances=len(instances.keys) + len(aside.keys),
            results=len(results.keys),
            bytes=instances.bytes + results.bytes,
            orphans=sum(1 for _ in self._orphans()),
            audit_segments=len(self._old_segments()),
            held=self._ledger.held(before=self._before(self._settings.results_days)),
        )

    def purge(self) -> Purge:
        """Delete what is old; what is old and still needed stays.

        Raises:
            StoreError: files cannot be deleted now, and nothing was marked as deleted.
        """
        self._outbox.check()
        before = self._before(self._settings.instances_days)
        instances, freed = self._delete(lambda: self._ledger.take_instances(before=before), self._spool.remove)
        aside, freed_aside = self._delete(lambda: self._ledger.take_set_aside(before=before), self._spool.remove)
        ended = self._before(self._settings.results_days)
        results, freed_results = self._delete(lambda: self._ledger.take_objects(before=ended), self._outbox.remove)
        orphans = 0
        for remove in self._orphans():
            remove()
            orphans += 1
        done = Purge(
            instances=instances + aside,
            results=results,
            bytes=freed + freed_aside + freed_results,
            orphans=orphans,
            audit_segments=self._purge_audit(),
            held=self._ledger.held(before=ended),
        )
        if done.instances or done.results or done.orphans:
            self._trail.purged(
                "retention",
                {"instances": str(done.instances), "results": str(done.results), "orphans": str(done.orphans)},
            )
        return done

    def _before(self, days: float) -> float:
        """Return the time before which things are old; 0 days keeps everything."""
        return self._clock() - days * DAY_S if days else 0.0

    def _delete(self, take: Callable[[], list[str]], remove: _Remove) -> tuple[int, int]:
        count = freed = 0
        begun = time.monotonic()
        while keys := take():
            for key in keys:
                freed += remove(key, since=begun)
                count += 1
            begun = time.monotonic()
        return count, freed

    def _orphans(self) -> Iterator[Callable[[], object]]:
        """Return how to remove each old file that no row names.

        The listener set it aside, or a worker that died left it in the outbox.
        """
        days = self._settings.instances_days
        for entry in self._spool.orphans() if days else ():
            if entry.age_s > days * DAY_S:
                yield partial(self._spool.remove_orphan, entry)
        for entry in self._outbox.objects():
            if entry.age_s > _ORPHAN_AFTER_S and not self._ledger.known_object_key(entry.key):
                yield partial(self._outbox.remove, entry.key, since=time.monotonic())

    def _old_segments(self) -> list[Path]:
        """Segments whose last record is old; never the newest, nor what syslog has not had yet."""
        before = self._before(self._settings.audit_days)
        sent = self._forwarded()
        found = []
        for path in self._audit_log.segments()[:-1]:
            if path.stat().st_mtime >= before or (sent and int(path.stem) >= sent.segment):
                break
            found.append(path)
        return found

    def _forwarded(self) -> Place | None:
        place = read_place(self._audit_log.folder / "forwarded")
        if place is None and self._waits_for_syslog:
            log.warning("audit records stay: none was forwarded yet")
            return Place()
        return place if self._waits_for_syslog else None

    def _purge_audit(self) -> int:
        segments = self._old_segments()
        if not segments:
            return 0
        try:
            last = self._audit_log.last_of(segments[-1])
        except ValueError:
            log.error("audit segment %s is damaged and stays: see pellucid audit verify", segments[-1].name)  # noqa: TRY400
            return 0
        self._trail.log_purged(number=last.number, digest=last.hash)
        for path in segments:
            path.unlink()
        return len(segments)
