"""Delivery that a PACS confirms, over DIMSE and DICOMweb, against real archives."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless
from pynetdicom import build_role, evt
from pynetdicom.ae import ApplicationEntity

from dicom_nodes.client import send_files
from dicom_nodes.references import COMMITMENT, COMMITMENT_INSTANCE
from dicom_nodes.status import Verdict
from service.audit.trail import open_log
from tests.archives import dcmqrscp, listens, orthanc, running
from tests.network import CR, cr_image, write_image
from tests.require import require_tool
from tests.sending import Desk, entity_reaches, finished_job, listening, settings_for
from tests.waiting import comes_true
from workers.sandbox import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.ledger.report import Reports
    from service.settings import Settings
    from tests.archives import Orthanc


@pytest.fixture(scope="module")
def our_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, our_port: int) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("pacs") / "orthanc", our_port=our_port) as archive:
        yield archive


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    if "pacs" in request.fixturenames:
        request.getfixturevalue("pacs").empty()


def prepared(settings: Settings, folder: Path, *, count: int = 3) -> tuple[Desk, Reports]:
    reports = finished_job(settings, folder, count=count)
    return Desk(settings), reports


def confirmations(settings: Settings) -> list[str]:
    """What the audit trail has of what peers said later."""
    return [record.kind for record, _ in open_log(settings).records() if record.kind.endswith("confirmed")]


def test_an_object_is_delivered_when_orthanc_committed_to_it(pacs: Orthanc, our_port: int, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, our_port=our_port, host="127.0.0.1", port=pacs.port, confirm="commitment")
    desk, reports = prepared(settings, tmp_path)
    assert desk.deliver() == 3
    assert desk.states() == ["sent"] * 3
    assert reports.jobs()[0].delivered == 0
    with listening(settings):
        desk.until("delivered", "delivered", "delivered")
    assert pacs.uids() == {"1.2.9.0", "1.2.9.1", "1.2.9.2"}


def test_what_orthanc_lost_before_it_committed_is_sent_again(pacs: Orthanc, our_port: int, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, our_port=our_port, host="127.0.0.1", port=pacs.port, confirm="commitment")
    desk, _ = prepared(settings, tmp_path, count=2)
    assert desk.deliver() == 2
    (lost,) = [
        entry["ID"] for entry in pacs.get("/instances?expand") if entry["MainDicomTags"]["SOPInstanceUID"] == "1.2.9.1"
    ]
    pacs.delete(f"/instances/{lost}")
    entity = ApplicationEntity("PACS")
    entity.add_requested_context(COMMITMENT)
    with listening(settings):
        # It is asked once: a report that comes before our listener listens is lost.
        assert comes_true(lambda: entity_reaches(entity, our_port), 30)
        desk.confirm()
        assert comes_true(lambda: desk.states() == ["delivered", "pending"], 60)
        assert "0x0112" in "".join(desk.column("reason"))
        desk.until("delivered", "delivered")
    assert pacs.uids() == {"1.2.9.0", "1.2.9.1"}


def test_a_peer_without_storage_commitment_is_believed(tmp_path: Path) -> None:
    with dcmqrscp(tmp_path / "qr") as port:
        settings = settings_for(tmp_path, ae_title="QRSCP", host="127.0.0.1", port=port, confirm="commitment")
        finished_job(settings, tmp_path, destination="archive")
        desk = Desk(settings)
        assert desk.sender.deliver("archive", threading.Event()) == 1
        desk.confirmer.confirm("archive", threading.Event())
        assert desk.states() == ["delivered"]
        assert desk.column("reason") == ["the peer does not offer Storage Commitment"]


class Committer:
    """A PACS that answers requests for commitment as it is told, on the association that asked."""

    def __init__(self, failures: dict[str, int] | None) -> None:
        self.failures = failures
        self.transactions: list[str] = []
        entity = ApplicationEntity("PACS")
        entity.add_supported_context(CR, "1.2.840.10008.1.2.1")
        entity.add_supported_context(COMMITMENT)
        self.server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0x0000), (evt.EVT_N_ACTION, self._asked)],
        )

    def _asked(self, event: Any) -> tuple[int, None]:
        asked = event.action_information
        self.transactions.append(str(asked.TransactionUID))
        if self.failures is not None:
            threading.Thread(target=self._report, args=(event.assoc, asked)).start()
        return 0x0000, None

    def _report(self, association: Any, asked: Dataset) -> None:
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        report.ReferencedSOPSequence, report.FailedSOPSequence = [], []
        for item in asked.ReferencedSOPSequence:
            reason = (self.failures or {}).get(str(item.ReferencedSOPInstanceUID))
            if reason is None:
                report.ReferencedSOPSequence.append(item)
            else:
                item.FailureReason = reason
                report.FailedSOPSequence.append(item)
        kind = 2 if report.FailedSOPSequence else 1
        association.send_n_event_report(report, kind, COMMITMENT, COMMITMENT_INSTANCE)


@pytest.fixture
def committer() -> Iterator[Committer]:
    pacs = Committer({"1.2.9.1": 0x0122, "1.2.9.2": 0x0110})
    yield pacs
    pacs.server.shutdown()


def test_a_report_on_the_same_association_settles_each_object_by_its_reason(
    committer: Committer, tmp_path: Path
) -> None:
    port = committer.server.server_address[1]
    settings = settings_for(tmp_path, host="127.0.0.1", port=port, confirm="commitment")
    desk, reports = prepared(settings, tmp_path)
    assert desk.deliver() == 3
    desk.confirm()
    assert desk.states() == ["delivered", "pending", "rejected"]
    assert sorted(confirmations(settings)) == ["confirmed", "not confirmed", "not confirmed"]
    assert {"not committed: 0x0122 the peer does not commit to this SOP class"} < set(desk.column("reason"))
    assert reports.jobs()[0].rejected == 1


def test_a_peer_that_never_reports_is_asked_again_under_another_name(committer: Committer, tmp_path: Path) -> None:
    committer.failures = None
    port = committer.server.server_address[1]
    settings = settings_for(tmp_path, host="127.0.0.1", port=port, confirm="commitment")
    desk, _ = prepared(settings, tmp_path, count=1)
    desk.deliver()

    def asked_twice() -> bool:
        desk.confirm()
        return len(committer.transactions) >= 2

    assert comes_true(asked_twice, 30)
    assert len(set(committer.transactions)) == len(committer.transactions)
    assert desk.states() == ["sent"]


def test_a_report_of_a_transaction_that_nobody_knows_is_acknowledged(our_port: int, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, our_port=our_port, host="127.0.0.1", port=1)
    report = Dataset()
    report.TransactionUID = "1.2.3"
    entity = ApplicationEntity("PACS")
    entity.add_requested_context(COMMITMENT)
    with listening(settings):
        assert comes_true(lambda: entity_reaches(entity, our_port), 30)
        association = entity.associate(
            "127.0.0.1", our_port, ae_title="PELLUCID", ext_neg=[build_role(COMMITMENT, scp_role=True)]
        )
        assert association.is_established
        answer, _ = association.send_n_event_report(report, 1, COMMITMENT, COMMITMENT_INSTANCE)
        assert answer.Status == 0x0000
        nameless = Dataset()
        nameless.RetrieveAETitle = "PACS"
        answer, _ = association.send_n_event_report(nameless, 1, COMMITMENT, COMMITMENT_INSTANCE)
        assert answer.Status == 0x0115
        association.release()


def test_a_query_confirms_what_dcmqrscp_holds(tmp_path: Path) -> None:
    with dcmqrscp(tmp_path / "qr") as port:
        settings = settings_for(tmp_path, ae_title="QRSCP", host="127.0.0.1", port=port, confirm="query")
        finished_job(settings, tmp_path, count=2, destination="archive")
        desk = Desk(settings)
        assert desk.sender.deliver("archive", threading.Event()) == 2
        assert desk.states() == ["sent", "sent"]
        desk.confirmer.confirm("archive", threading.Event())
        assert desk.states() == ["delivered", "delivered"]
        assert confirmations(settings) == ["confirmed", "confirmed"]


def test_what_a_query_does_not_find_in_time_is_sent_again(pacs: Orthanc, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, host="127.0.0.1", port=pacs.port, confirm="query")
    desk, _ = prepared(settings, tmp_path, count=1)
    desk.deliver()
    pacs.empty()

    def found_missing() -> bool:
        desk.confirm()
        return desk.states() == ["pending"]

    assert comes_true(found_missing, 20)
    desk.until("delivered")
    assert pacs.uids() == {"1.2.9.0"}


@pytest.mark.parametrize("confirm", ["none", "query"])
def test_objects_reach_orthanc_by_stow_and_are_found_by_qido(confirm: str, pacs: Orthanc, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, url=pacs.url, confirm=confirm)
    desk, _ = prepared(settings, tmp_path)
    desk.until("delivered", "delivered", "delivered")
    assert pacs.uids() == {"1.2.9.0", "1.2.9.1", "1.2.9.2"}


def test_a_password_is_asked_for_and_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extra = {"AuthenticationEnabled": True, "RegisteredUsers": {"pellucid": "sesame"}}
    with orthanc(tmp_path / "orthanc", extra=extra) as archive:
        wrong = settings_for(tmp_path / "wrong", url=archive.url, user="pellucid", password="mistaken")  # noqa: S106
        desk, reports = prepared(wrong, tmp_path, count=1)
        assert desk.deliver() == 0
        assert reports.jobs()[0].delivery_reason == "the service answered 401"
        right = settings_for(tmp_path / "right", url=archive.url, user="pellucid", password="sesame")  # noqa: S106
        desk, _ = prepared(right, tmp_path, count=1)
        assert desk.deliver() == 1
    assert "sesame" not in caplog.text + repr(right)
    assert "mistaken" not in caplog.text + repr(wrong)


def test_a_web_destination_that_is_down_is_asked_once_and_gets_its_objects_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(tmp_path, url="http://127.0.0.1:1/dicom-web")
    desk, reports = prepared(settings, tmp_path, count=3)
    assert desk.deliver() == 0
    assert "out of reach" in reports.jobs()[0].delivery_reason
    assert desk.states() == ["pending"] * 3
    assert caplog.text.count("all objects for @PACS wait") == 1


def test_storescp_that_takes_implicit_only_gets_a_decompressed_object(tmp_path: Path) -> None:
    image = cr_image()
    path = write_image(tmp_path / "plain.dcm", image)
    compressed = dcmread(path)
    compressed.compress(RLELossless, generate_instance_uid=False)
    compressed.save_as(tmp_path / "rle.dcm")
    port, received = free_port(), tmp_path / "received"
    received.mkdir()
    command = [require_tool("storescp"), "+xi", "-aet", "PLAIN", "-od", str(received), str(port)]
    peer = ("127.0.0.1", port, "PLAIN", "TEST")
    with running(command, received, lambda: listens(port)):
        (outcome,) = send_files([tmp_path / "rle.dcm"], *peer)
    assert outcome.verdict is Verdict.DELIVERED
    (stored,) = [dcmread(entry) for entry in received.iterdir() if entry.name != "log.txt"]
    assert stored.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert stored.PixelData == image.PixelData
