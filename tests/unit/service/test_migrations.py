from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect, text

from service.errors import SettingsError
from service.ledger.creation import NewJob
from service.ledger.database import NEWEST, migrate_to, open_database
from service.ledger.delivery import Deliveries
from service.ledger.report import Reports
from service.ledger.work import Work
from service.records import OutboxObject

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Books


def fill(books: Books) -> None:
    """One job in the queue, one whose object waits for delivery."""
    books.arrive("1.2.3.4")
    for number in range(2):
        job = NewJob(
            id=f"{number}" * 32,
            study_instance_uid="1.2.3",
            pipeline=f"chest-{number}",
            pipeline_version="1",
            model_sha256="m" * 64,
            calling_ae="PACS",
            called_ae="PELLUCID",
            priority="routine",
            sop_instance_uids=("1.2.3.4",),
        )
        books.work.assign([job], [])
    claim = books.work.claim("0" * 32, lease_s=30, maximum_attempts=3)
    assert claim is not None
    made = OutboxObject(
        sop_instance_uid="2.25.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        study_instance_uid="1.2.3",
        series_instance_uid="2.25.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        job_id="0" * 32,
        kind="secondary-capture",
        key="k",
        sha256="b" * 64,
        size=6,
    )
    books.work.finish(claim, [made], ["pacs"])


def test_rolling_back_and_forth_in_the_middle_of_a_queue_loses_nothing(books: Books) -> None:
    fill(books)
    before = books.reports.jobs()
    url = str(books.engine.url)
    migrate_to(books.engine, "0001")
    with books.engine.connect() as connection:
        assert not inspect(connection).has_table("announced")
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 2
    books.engine.dispose()
    engine = open_database(url)
    assert Reports(engine, books.clock).jobs() == before
    assert Work(engine, books.clock).claim("1" * 32, lease_s=30, maximum_attempts=3) is not None
    (delivery,) = Deliveries(engine, books.clock).claim("pacs", lease_s=30)
    assert delivery.object.sop_instance_uid == "2.25.1"
    engine.dispose()


def test_a_version_that_finds_a_newer_schema_says_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SettingsError, match=f"pellucid migrate --to {NEWEST}"):
        open_database(url)


def test_a_revision_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with pytest.raises(SettingsError, match="there is no schema 0000a"):
        migrate_to(engine, "0000a")
    engine.dispose()
