"""`confirm = "retrieve"`: what a PACS holds is read back and compared, against real archives."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from sqlalchemy import update

from dicom_nodes.client import send_files
from service.ledger.schema import deliveries
from service.ledger.work import Work
from tests.archives import dcmqrscp, orthanc
from tests.network import cr_image, write_image
from tests.sending import Desk, finished_job, listening, settings_for
from tests.waiting import comes_true
from workers.sandbox import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from service.settings import Settings
    from tests.archives import Orthanc

WAYS = ("get", "move", "wado")


@pytest.fixture(scope="module")
def our_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, our_port: int) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("pacs") / "orthanc", our_port=our_port) as running:
        yield running


@pytest.fixture
def pacs(archive: Orthanc) -> Orthanc:
    archive.empty()
    return archive


def settings_of(way: str, pacs: Orthanc, our_port: int, folder: Path) -> Settings:
    if way == "wado":
        return settings_for(folder, url=pacs.url, confirm="retrieve")
    return settings_for(folder, our_port=our_port, host="127.0.0.1", port=pacs.port, confirm="retrieve", retrieve=way)


def listener_for(way: str, settings: Settings) -> AbstractContextManager[None]:
    return listening(settings) if way == "move" else nullcontext()


@pytest.mark.parametrize("way", WAYS)
def test_what_orthanc_gives_back_unchanged_is_delivered(way: str, pacs: Orthanc, our_port: int, tmp_path: Path) -> None:
    settings = settings_of(way, pacs, our_port, tmp_path)
    finished_job(settings, tmp_path, count=2)
    desk = Desk(settings)
    assert desk.deliver() == 2
    assert desk.states() == ["sent", "sent"]
    with listener_for(way, settings):
        desk.until("delivered", "delivered")
    assert desk.column("reason") == ["", ""]
    assert pacs.uids() == {"1.2.9.0", "1.2.9.1"}


@pytest.mark.parametrize("way", WAYS)
def test_an_object_that_orthanc_took_and_did_not_keep_is_a_lie_that_ends_the_delivery(
    way: str, pacs: Orthanc, our_port: int, tmp_path: Path
) -> None:
    settings = settings_of(way, pacs, our_port, tmp_path)
    reports = finished_job(settings, tmp_path, count=1)
    # Orthanc keeps the first of two objects with one UID, and answers success to both.
    other = write_image(tmp_path / "other.dcm", cr_image("1.2.9.0", SeriesDescription="secret words"))
    send_files([other], "127.0.0.1", pacs.port, "ORTHANC", "TEST")
    desk = Desk(settings)
    assert desk.deliver() == 1
    with listener_for(way, settings):
        desk.until("rejected")
        assert desk.deliver() == 0
    (reason,) = desk.column("reason")
    assert reason.endswith("holds other content than it was sent: SeriesDescription (0008,103E)")
    assert "secret" not in reason
    assert (reports.jobs()[0].rejected, reports.jobs()[0].delivered) == (1, 0)


def test_an_object_is_delivered_by_move_once_the_pacs_holds_the_right_one(
    pacs: Orthanc, our_port: int, tmp_path: Path
) -> None:
    settings = settings_of("move", pacs, our_port, tmp_path)
    finished_job(settings, tmp_path, count=1)
    other = write_image(tmp_path / "other.dcm", cr_image("1.2.9.0", PixelData=os.urandom(512)))
    send_files([other], "127.0.0.1", pacs.port, "ORTHANC", "TEST")
    desk = Desk(settings)
    work = Work(desk.engine)
    with listening(settings):
        desk.until("rejected")
        assert "PixelData (7FE0,0010)" in desk.column("reason")[0]
        # Still wrong: the same other content comes again, and is recognised again.
        work.retry("j" * 32)
        desk.until("rejected")
        pacs.empty()
        work.retry("j" * 32)
        desk.until("delivered")
        # And the right one twice.
        with desk.engine.begin() as connection:
            connection.execute(update(deliveries).values(state="sent", reason="once more"))
        desk.until("delivered")
        assert desk.column("reason") == [""]
    assert pacs.uids() == {"1.2.9.0"}


def test_what_orthanc_lost_is_sent_again(pacs: Orthanc, our_port: int, tmp_path: Path) -> None:
    settings = settings_of("get", pacs, our_port, tmp_path)
    finished_job(settings, tmp_path, count=1)
    desk = Desk(settings)
    desk.deliver()
    pacs.empty()

    def noticed() -> bool:
        desk.confirm()
        return desk.states() == ["pending"]

    assert comes_true(noticed, 20)
    desk.until("delivered")


def test_an_archive_that_knows_no_way_back_leaves_the_object_unconfirmed_and_is_not_sent_it_again(
    tmp_path: Path,
) -> None:
    with dcmqrscp(tmp_path / "qr", our_port=1) as port:
        settings = settings_for(tmp_path, ae_title="QRSCP", host="127.0.0.1", port=port, confirm="retrieve")
        finished_job(settings, tmp_path, count=1, destination="archive")
        desk = Desk(settings)
        assert desk.sender.deliver("archive", threading.Event()) == 1

        def asked() -> bool:
            desk.confirmer.confirm("archive", threading.Event())
            return "not read back" in desk.column("reason")[0]

        assert comes_true(asked, 30)
        assert desk.states() == ["sent"]


def test_dcmqrscp_gives_back_what_it_was_sent(tmp_path: Path) -> None:
    image = cr_image("1.2.9.0")
    assert dcmread(write_image(tmp_path / "x.dcm", image)).SOPInstanceUID == "1.2.9.0"
    with dcmqrscp(tmp_path / "qr") as port:
        settings = settings_for(
            tmp_path, ae_title="QRSCP", host="127.0.0.1", port=port, confirm="retrieve", retrieve="get"
        )
        finished_job(settings, tmp_path, count=1, destination="archive")
        desk = Desk(settings)
        assert desk.sender.deliver("archive", threading.Event()) == 1
        desk.confirmer.confirm("archive", threading.Event())
        assert desk.states() == ["delivered"]
