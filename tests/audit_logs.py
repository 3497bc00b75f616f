"""An audit log of five records on a clock that stands still, for the tests of its chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.audit.chain import AuditLog

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """Says what it is set to, seconds since 1970."""

    now = 1_770_000_000.0

    def __call__(self) -> float:
        return self.now


def log_of_five(folder: Path) -> AuditLog:
    """Write five records on one day."""
    log = AuditLog(folder, Clock())
    for number in range(5):
        log.append(kind="test", message=f"<m n='{number}'/>", study="1.2.3")
    return log


def only_segment(log: AuditLog) -> Path:
    """Return the file of the only day."""
    (path,) = log.segments()
    return path
