from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.ledger.delivery import Deliveries
from service.ledger.report import Reports
from service.ledger.work import Work
from service.records import Instance
from service.storage import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bucket import Bucket
    from sqlalchemy import Engine

    from service.storage import Storage


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Books:
    engine: Engine
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.arrivals = Arrivals(self.engine, self.clock)
        self.work = Work(self.engine, self.clock)
        self.deliveries = Deliveries(self.engine, self.clock)
        self.reports = Reports(self.engine, self.clock)

    def arrive(self, sop: str, *, study: str = "1.2.3", association: str = "a", **changes: object) -> object:
        instance = make_instance(sop, study=study, **changes)
        return self.arrivals.record(instance, association=association, association_expires_at=self.clock() + 30)


def make_instance(sop: str, *, study: str = "1.2.3", **changes: object) -> Instance:
    values: dict[str, object] = {
        "sop_instance_uid": sop,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "modality": "DX",
        "sha256": "a" * 64,
        "size": 10,
        "key": f"key-{sop}",
        "calling_ae": "PACS",
        "called_ae": "PELLUCID",
        "address": "127.0.0.1",
        "received_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Instance(**{**values, **changes})


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield Books(engine)
    engine.dispose()


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Storage:
    """Every storage that there is: whoever takes this promises the same of each."""
    if request.param == "folder":
        return Folder(tmp_path / "kept")
    from service.s3 import S3Storage  # noqa: PLC0415

    return S3Storage(bucket.section(), "spool", copies=tmp_path / "copies", attempts=1)


@pytest.fixture
def grow_old(storage: Storage, bucket: Bucket, tmp_path: Path) -> Callable[[float], None]:
    """Make everything in the storage so many seconds older."""
    if not isinstance(storage, Folder):
        return bucket.age

    def age(seconds: float) -> None:
        for path in (tmp_path / "kept").rglob("*.dcm"):
            os.utime(path, (time.time(), path.stat().st_mtime - seconds))

    return age
