from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dicom_nodes.destinations import find_destination
from dicom_nodes.sender import BATCH, Sender, run_sender
from service.audit.commands import details
from service.audit.trail import open_log
from service.ledger.work import Work
from service.settings import Settings, load_settings
from tests.network import CR
from tests.sending import finished_job
from tests.waiting import comes_true

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pynetdicom.transport import ThreadedAssociationServer


class Archive:
    """A PACS that can be switched on and off, and answers as it is told."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.received: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.port = 0
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        entity = ApplicationEntity("PACS")
        entity.add_supported_context(CR, "1.2.840.10008.1.2.1")
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server = None

    def _store(self, event: Any) -> int:
        status = self.answers.pop(0) if self.answers else 0x0000
        if status in (0x0000, 0xB000):
            self.received.append(str(event.request.AffectedSOPInstanceUID))
            self.meanwhile()
        return status


@pytest.fixture
def archive() -> Iterator[Archive]:
    pacs = Archive()
    pacs.start()
    yield pacs
    pacs.stop()


def settings_for(folder: Path, port: int) -> Settings:
    return load_settings(
        None,
        {
            "PELLUCID__STATE__DIRECTORY": str(folder / "state"),
            "PELLUCID__PEERS": f'{{archive = {{ae_title = "PACS", host = "127.0.0.1", port = {port}}}}}',
            "PELLUCID__SENDER__FIRST_RETRY_S": "0.2",
            "PELLUCID__SENDER__LONGEST_RETRY_S": "0.4",
            "PELLUCID__SENDER__TIMEOUT_S": "5",
        },
    )


@pytest.fixture
def sending() -> Callable[[Settings], AbstractContextManager[None]]:
    from contextlib import contextmanager  # noqa: PLC0415

    @contextmanager
    def running(settings: Settings) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=run_sender, args=(settings, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=20)
            assert not thread.is_alive()

    return running


def test_objects_reach_the_ae_that_sent_the_study(archive: Archive, tmp_path: Path, sending) -> None:  # noqa: ANN001
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path, count=25)
    with sending(settings):
        assert comes_true(lambda: reports.jobs()[0].delivered == 25, 15)
        assert [process.name for process in reports.alive(within_s=60)] == ["sender"]
    assert sorted(archive.received) == sorted(f"1.2.9.{index}" for index in range(25))


def test_a_destination_that_is_down_gets_its_objects_when_it_is_up(
    archive: Archive,
    tmp_path: Path,
    sending,  # noqa: ANN001
) -> None:
    archive.stop()
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path, count=2)
    with sending(settings):
        assert comes_true(lambda: "out of reach" in reports.jobs()[0].delivery_reason, 10)
        assert reports.jobs()[0].delivered == 0
        archive.start()
        assert comes_true(lambda: reports.jobs()[0].delivered == 2, 10)
    assert sorted(archive.received) == ["1.2.9.0", "1.2.9.1"]


@pytest.mark.parametrize("status", [0xA700, 0x0110])
def test_a_passing_refusal_is_tried_again(status: int, archive: Archive, tmp_path: Path, sending) -> None:  # noqa: ANN001
    archive.answers = [status, status]
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path)
    with sending(settings):
        assert comes_true(lambda: reports.jobs()[0].delivered == 1, 10)
    assert archive.received == ["1.2.9.0"]


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0117, 0x0122])
def test_a_refusal_for_cause_is_set_aside_with_its_reason_until_retried(
    status: int, archive: Archive, tmp_path: Path
) -> None:
    archive.answers = [status]
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path)
    sender, stop = Sender(settings), threading.Event()
    assert sender.deliver("@PACS", stop) == 0
    (report,) = reports.jobs()
    assert report.rejected == 1
    assert f"0x{status:04X}" in report.delivery_reason
    assert sender.deliver("@PACS", stop) == 0
    Work(reports.engine).retry(report.job.id)
    assert sender.deliver("@PACS", stop) == 1


def audited(settings: Settings) -> list[tuple[str, str]]:
    """What the audit trail says: kinds of records, and answers."""
    return [(record.kind, details(record).get("answer", "")) for record, _ in open_log(settings).records()]


def test_the_audit_trail_has_the_beginning_once_and_each_final_answer(archive: Archive, tmp_path: Path) -> None:
    archive.answers = [0xA700, 0xC000]
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path)
    sender, stop = Sender(settings), threading.Event()
    assert comes_true(lambda: bool(sender.deliver("@PACS", stop)) or bool(reports.jobs()[0].rejected), 10)
    (began, _), (kind, answer) = audited(settings)
    assert (began, kind, answer[:6]) == ("sending", "rejected", "0xC000")
    Work(reports.engine).retry(reports.jobs()[0].job.id)
    assert sender.deliver("@PACS", stop) == 1
    assert audited(settings)[-1] == ("sent", "0x0000 success")


def test_what_the_ledger_could_not_note_is_in_the_audit_trail(archive: Archive, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path)

    def lose_the_ledger() -> None:
        with reports.engine.begin() as connection:
            connection.execute(text("ALTER TABLE deliveries RENAME TO gone"))

    archive.meanwhile = lose_the_ledger
    with pytest.raises(SQLAlchemyError):
        Sender(settings).deliver("@PACS", threading.Event())
    assert [kind for kind, _ in audited(settings)] == ["sending", "sent"]


@pytest.mark.parametrize("status", [0x0111, 0xB000])
def test_a_warning_counts_as_delivered(status: int, archive: Archive, tmp_path: Path) -> None:
    archive.answers = [status]
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path)
    assert Sender(settings).deliver("@PACS", threading.Event()) == 1
    assert reports.jobs()[0].delivered == 1


def test_an_unknown_destination_waits_and_says_what_to_add(archive: Archive, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path, destination="@ELSEWHERE")
    assert Sender(settings).deliver("@ELSEWHERE", threading.Event()) == 0
    assert reports.jobs()[0].delivery_reason == "no [peers] section has AE title ELSEWHERE: add one"
    assert reports.jobs()[0].rejected == 0


def test_a_title_of_two_places_waits_and_is_never_guessed(archive: Archive, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, archive.port)
    other = settings.peers["archive"].model_copy(update={"host": "192.0.2.1"})
    settings = settings.model_copy(update={"peers": {**settings.peers, "other": other}})
    reports = finished_job(settings, tmp_path, destination="@PACS")
    assert Sender(settings).deliver("@PACS", threading.Event()) == 0
    assert "2 [peers] sections have AE title PACS" in reports.jobs()[0].delivery_reason
    assert find_destination(settings, "archive").port == archive.port


def test_all_objects_for_an_unknown_destination_wait_together(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(tmp_path, archive.port)
    finished_job(settings, tmp_path, destination="@ELSEWHERE", count=BATCH + 1)
    assert Sender(settings).deliver("@ELSEWHERE", threading.Event()) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "all objects for @ELSEWHERE wait: no [peers] section has AE title ELSEWHERE: add one"
    ]


def test_an_altered_file_is_never_sent(archive: Archive, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, archive.port)
    reports = finished_job(settings, tmp_path)
    (path,) = [entry for entry in (tmp_path / "state" / "outbox").rglob("*.dcm")]  # noqa: C416
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert Sender(settings).deliver("@PACS", threading.Event()) == 0
    assert "missing or altered" in reports.jobs()[0].delivery_reason
    assert archive.received == []


def test_a_destination_is_found_by_name_and_by_ae_title(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, 4242)
    assert find_destination(settings, "archive") == find_destination(settings, "@PACS")
    assert find_destination(settings, "archive").port == 4242
