"""Deliveries that wait for a PACS to say that it has what it took, and studies that were announced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic import command
from sqlalchemy import inspect, text

from service.errors import SettingsError
from service.ledger.creation import NewJob
from service.ledger.database import NEWEST, _configuration, open_database
from service.records import DeliveryState, OutboxObject
from service.settings import load_settings
from tests.unit.service.conftest import make_instance

if TYPE_CHECKING:
    from pathlib import Path

    from service.records import Delivery
    from tests.unit.service.conftest import Books

JOB = "j" * 32


def sent(books: Books, *uids: str) -> list[Delivery]:
    """Finish a job with these objects and let the PACS take them."""
    books.arrive("1.1")
    new = NewJob(
        id=JOB, study_instance_uid="1.2.3", pipeline="p", pipeline_version="1", model_sha256="m", calling_ae="PACS",
        called_ae="PELLUCID", priority="routine", sop_instance_uids=("1.1",),
    )  # fmt: skip
    books.work.assign([new], [make_instance("1.1")])
    claim = books.work.claim(JOB, lease_s=10, maximum_attempts=3)
    assert claim is not None
    made = [
        OutboxObject(
            sop_instance_uid=uid, sop_class_uid="1.2", study_instance_uid="1.2.3", series_instance_uid="1.2.3.1",
            transfer_syntax_uid="1.2.840.10008.1.2.1", job_id=JOB, kind="sc", key=uid, sha256="s", size=1,
        )
        for uid in uids
    ]  # fmt: skip
    books.work.finish(claim, made, ["@PACS"])
    for delivery in books.deliveries.claim("@PACS", lease_s=10):
        books.deliveries.sent(delivery)
    return books.deliveries.claim("@PACS", lease_s=0, state=DeliveryState.SENT)


def test_what_was_sent_is_not_delivered_and_not_sent_again(books: Books) -> None:
    sent(books, "1.9.1")
    (report,) = books.reports.jobs()
    assert (report.objects, report.delivered, report.delivered_at) == (1, 0, None)
    assert books.deliveries.due_destinations() == []
    assert books.deliveries.due_destinations(DeliveryState.SENT) == ["@PACS"]
    (waiting,) = books.deliveries.claim("@PACS", lease_s=10, state=DeliveryState.SENT)
    assert waiting.sent_at is not None
    assert waiting.sent_at.timestamp() == books.clock()


def test_what_was_asked_for_is_asked_for_again_after_its_time(books: Books) -> None:
    sent(books, "1.9.1")
    batch = books.deliveries.claim("@PACS", lease_s=10, state=DeliveryState.SENT)
    books.deliveries.asked(batch, transaction_uid="1.7", again_after_s=60)
    assert books.deliveries.due_destinations(DeliveryState.SENT) == []
    assert [entry.object.sop_instance_uid for entry in books.deliveries.of_transaction("1.7")] == ["1.9.1"]
    books.clock.now += 61
    assert books.deliveries.due_destinations(DeliveryState.SENT) == ["@PACS"]


def test_asking_again_forgets_the_earlier_name(books: Books) -> None:
    batch = sent(books, "1.9.1")
    books.deliveries.asked(batch, transaction_uid="1.7", again_after_s=0)
    books.deliveries.asked(batch, transaction_uid="1.8", again_after_s=0)
    assert books.deliveries.of_transaction("1.7") == []
    assert len(books.deliveries.of_transaction("1.8")) == 1


def test_an_answer_that_comes_after_delivery_changes_nothing(books: Books) -> None:
    (delivery,) = sent(books, "1.9.1")
    books.deliveries.asked([delivery], transaction_uid="1.7", again_after_s=60)
    books.deliveries.delivered(delivery)
    assert books.deliveries.of_transaction("1.7") == []
    books.deliveries.asked([delivery], transaction_uid="1.8", again_after_s=0)
    assert books.deliveries.due_destinations(DeliveryState.SENT) == []


def test_what_the_pacs_lost_is_sent_again(books: Books) -> None:
    (delivery,) = sent(books, "1.9.1")
    books.deliveries.postpone([delivery], reason="not committed", first_s=1, longest_s=1)
    books.clock.now += 2
    (again,) = books.deliveries.claim("@PACS", lease_s=10)
    assert (again.state, again.reason) == (DeliveryState.PENDING, "not committed")


def test_an_announced_study_is_complete_when_all_of_it_is_here(books: Books) -> None:
    books.arrivals.announce("1.2.3", ["1.1", "1.2"])
    books.arrive("1.1")
    assert books.arrivals.complete_studies(quiet_period_s=10) == []
    books.arrive("1.2")
    (complete,) = books.arrivals.complete_studies(quiet_period_s=10)
    assert complete[:2] == ("1.2.3", "PELLUCID")
    books.work.complete_study(*complete, [])
    # The announcement is used up: a late instance waits for the quiet period.
    books.arrive("1.3")
    assert books.arrivals.complete_studies(quiet_period_s=10) == []


def test_what_was_announced_of_a_study_says_nothing_of_what_comes_later(books: Books) -> None:
    books.arrive("1.1")
    books.arrivals.close_association("a")
    books.clock.now += 11
    (complete,) = books.arrivals.complete_studies(quiet_period_s=10)
    books.work.complete_study(*complete, [])
    # The PACS says so late; hours later another series begins to come.
    books.arrivals.announce("1.2.3", ["1.1"])
    books.arrive("1.2")
    assert books.arrivals.complete_studies(quiet_period_s=10) == []
    books.arrivals.close_association("a")
    books.clock.now += 11
    assert len(books.arrivals.complete_studies(quiet_period_s=10)) == 1


def test_a_study_is_whole_for_the_title_that_has_all_of_it(books: Books) -> None:
    books.arrivals.announce("1.2.3", ["1.1", "1.2"])
    for uid, title in (("1.1", "A"), ("1.2", "A"), ("1.1", "B")):
        books.arrive(uid, called_ae=title)
    assert [entry[1] for entry in books.arrivals.complete_studies(quiet_period_s=10)] == ["A"]


def test_a_ledger_of_the_first_schema_is_brought_up_to_date_with_its_rows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    engine = open_database(url)
    with engine.begin() as connection:
        command.downgrade(_configuration(connection), "0001")
    assert "transaction_uid" not in {column["name"] for column in inspect(engine).get_columns("deliveries")}
    with engine.begin() as connection:
        connection.execute(text("PRAGMA foreign_keys=OFF"))
        connection.execute(
            text("INSERT INTO studies (study_instance_uid, called_ae, last_arrival, complete) VALUES ('1', 'A', 0, 0)")
        )
    engine.dispose()
    engine = open_database(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == NEWEST
        assert connection.execute(text("SELECT count(*) FROM studies")).scalar() == 1
    columns = {column["name"] for column in inspect(engine).get_columns("deliveries")}
    assert {"transaction_uid", "state"} <= columns
    engine.dispose()


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        ('{ae_title = "A"}', "give host and port"),
        ('{ae_title = "A", host = "h"}', "give host and port"),
        ('{ae_title = "A", url = "https://h", host = "h", port = 1}', "not both"),
        ('{ae_title = "A", url = "ftp://h"}', "https://"),
        ('{ae_title = "A", url = "https://h", confirm = "commitment"}', "query"),
    ],
)
def test_a_peer_without_a_place_is_refused(peer: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(None, {"PELLUCID__PEERS": f"{{pacs = {peer}}}"})


def test_a_token_comes_from_a_file_and_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame\n")
    settings = load_settings(
        None,
        {
            "PELLUCID__PEERS": '{pacs = {ae_title = "A", url = "https://h/dicom-web"}}',
            "PELLUCID__PEERS__PACS__TOKEN__FILE": str(tmp_path / "token"),
            "PELLUCID__DICOMWEB__TOKEN__FILE": str(tmp_path / "token"),
        },
    )
    assert settings.peers["pacs"].token == settings.dicomweb.token == "sesame"  # noqa: S105
    assert "sesame" not in repr(settings)
