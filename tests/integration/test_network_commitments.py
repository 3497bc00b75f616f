"""Archives that commit late, twice or to somebody else's request, and one that lies, against the real sender."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults.archives import FaultyArchive
from faults.commitments import CommittingArchive

from dicom_nodes.client import echo, send_files
from service.errors import DestinationError
from tests.network import station, write_image
from tests.sending import Desk, finished_job, listening, settings_for
from tests.waiting import comes_true
from workers.sandbox import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.settings import Settings


@pytest.fixture
def archive() -> Iterator[CommittingArchive]:
    made = CommittingArchive()
    made.our_port = free_port()
    yield made
    made.stop()


def settings_of(archive: CommittingArchive, folder: Path) -> Settings:
    return settings_for(folder, our_port=archive.our_port, host="127.0.0.1", port=archive.port, confirm="commitment")


def test_who_always_commits_later_than_we_wait_is_waited_for_longer_each_time(
    archive: CommittingArchive, tmp_path: Path
) -> None:
    archive.commits, archive.late_s = "late", 2.0
    settings = settings_of(archive, tmp_path)
    assert settings.sender.confirm_timeout_s < archive.late_s
    finished_job(settings, tmp_path, count=1)
    desk = Desk(settings)
    with listening(settings):
        desk.until("delivered")
    # On a slow machine the first request may already be answered in time; with one patience for all, none ever would.
    assert len(archive.requests) == 1


def test_what_is_committed_twice_is_delivered_once(archive: CommittingArchive, tmp_path: Path) -> None:
    archive.commits = "twice"
    settings = settings_of(archive, tmp_path)
    finished_job(settings, tmp_path, count=1)
    desk = Desk(settings)
    with listening(settings):
        desk.until("delivered")
        assert comes_true(lambda: len(archive.answers) >= 2, 30)
    assert set(archive.answers) == {0x0000}
    assert desk.states() == ["delivered"]


def test_a_commitment_to_a_request_of_nobody_delivers_nothing(archive: CommittingArchive, tmp_path: Path) -> None:
    archive.commits = "stranger"
    settings = settings_of(archive, tmp_path)
    finished_job(settings, tmp_path, count=1)
    desk = Desk(settings)
    with listening(settings):
        desk.deliver()
        desk.confirm()
        assert comes_true(lambda: bool(archive.answers), 30)
        assert archive.answers[0] == 0x0000
        assert desk.states() == ["sent"]


def test_an_archive_that_changes_what_it_keeps_is_found_out_and_not_sent_it_again(tmp_path: Path) -> None:
    archive = FaultyArchive()
    archive.behaviour = "other-bytes"
    settings = settings_for(tmp_path, host="127.0.0.1", port=archive.port, confirm="retrieve", retrieve="get")
    finished_job(settings, tmp_path, count=2)
    desk = Desk(settings)
    try:
        desk.until("rejected", "rejected")
        assert desk.deliver() == 0
    finally:
        archive.stop()
    assert len(archive.requests) == 2
    assert all(reason.endswith("SeriesDescription (0008,103E)") for reason in desk.column("reason"))


def test_the_title_that_we_send_under_takes_reports_and_no_instances(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm")
    with station(tmp_path, reports_to=("SENDER",)) as running:
        echo("127.0.0.1", running.port, "SENDER", "PACS")
        (outcome,) = send_files([path], "127.0.0.1", running.port, "SENDER", "PACS")
        assert outcome.status == 0x0124
        with pytest.raises(DestinationError, match="Called AE"):
            echo("127.0.0.1", running.port, "NOBODY", "PACS")
        assert running.files() == []
