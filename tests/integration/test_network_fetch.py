"""`pellucid fetch` and Instance Availability Notification, against real archives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread
from pynetdicom.ae import ApplicationEntity
from sqlalchemy import select

from dicom_nodes.client import send_files
from dicom_nodes.references import AVAILABILITY
from service.audit.trail import open_log
from service.cli import cli
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.ledger.schema import studies
from tests.archives import dcmqrscp, orthanc
from tests.network import CR, cr_image, write_image
from tests.sending import entity_reaches, listening, settings_for
from tests.waiting import comes_true
from workers.sandbox import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from service.settings import Settings
    from tests.archives import Orthanc

STUDIES = {"1.2.30": "20240301", "1.2.20": "20230301", "1.2.10": "20220301", "1.2.40": "20250301"}


@pytest.fixture(scope="module")
def our_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [
        write_image(folder / f"{study}-{index}.dcm", cr_image(f"{study}.1.{index}", study=study, StudyDate=date))
        for study, date in STUDIES.items()
        for index in range(2)
    ]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, our_port: int, films: list[Path]) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("pacs") / "orthanc", our_port=our_port) as archive:
        send_files(films, "127.0.0.1", archive.port, "ORTHANC", "TEST")
        yield archive


@pytest.fixture(scope="module")
def qrscp(tmp_path_factory: pytest.TempPathFactory, our_port: int, films: list[Path]) -> Iterator[int]:
    with dcmqrscp(tmp_path_factory.mktemp("qr") / "archive", our_port=our_port) as port:
        send_files(films, "127.0.0.1", port, "QRSCP", "TEST")
        yield port


def fetch(settings: Settings, *arguments: str) -> Result:
    peer = settings.peers["archive"]
    environment = {
        "PELLUCID__STATE__DIRECTORY": str(settings.state.directory),
        "PELLUCID__LISTENER__MINIMUM_FREE_MB": "0",
        "PELLUCID__SENDER__TIMEOUT_S": "8",
        "PELLUCID__PEERS": "{archive = {"
        + ", ".join(f"{key} = {json.dumps(value)}" for key, value in peer.model_dump(exclude_defaults=True).items())
        + "}}",
    }
    return CliRunner(env=environment).invoke(cli, ["fetch", *arguments, "--from", "archive", "--json"])


def arrived(settings: Settings) -> dict[str, set[str]]:
    engine = open_database(settings.database_url)
    found: dict[str, set[str]] = {}
    for study in STUDIES:
        for instance in Arrivals(engine).instances_of_study(study, "PELLUCID"):
            assert instance.calling_ae == settings.peers["archive"].ae_title
            found.setdefault(study, set()).add(instance.sop_instance_uid)
    engine.dispose()
    return found


@pytest.mark.parametrize("way", ["url", "get"])
def test_a_study_and_its_priors_come_from_orthanc(way: str, pacs: Orthanc, tmp_path: Path) -> None:
    place = {"url": pacs.url} if way == "url" else {"host": "127.0.0.1", "port": pacs.port, "retrieve": "get"}
    settings = settings_for(tmp_path, ae_title="ORTHANC", **place)
    done = fetch(settings, "1.2.30", "--priors", "1")
    assert done.exit_code == 0, done.output
    assert [entry["study_instance_uid"] for entry in json.loads(done.stdout)] == ["1.2.30", "1.2.20"]
    assert arrived(settings) == {uid: {f"{uid}.1.0", f"{uid}.1.1"} for uid in ("1.2.30", "1.2.20")}


def test_a_study_comes_from_orthanc_by_c_move_to_our_listener(pacs: Orthanc, our_port: int, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, our_port=our_port, ae_title="ORTHANC", host="127.0.0.1", port=pacs.port)
    with listening(settings):
        assert comes_true(lambda: entity_reaches(_echoing(), our_port), 30)
        done = fetch(settings, "1.2.30")
    assert done.exit_code == 0, done.output
    assert arrived(settings) == {"1.2.30": {"1.2.30.1.0", "1.2.30.1.1"}}


@pytest.mark.parametrize("way", ["get", "move"])
def test_a_study_comes_from_dcmqrscp(way: str, qrscp: int, our_port: int, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, our_port=our_port, ae_title="QRSCP", host="127.0.0.1", port=qrscp, retrieve=way)
    with listening(settings):
        assert comes_true(lambda: entity_reaches(_echoing(), our_port), 30)
        done = fetch(settings, "1.2.30")
    assert done.exit_code == 0, done.output
    assert arrived(settings) == {"1.2.30": {"1.2.30.1.0", "1.2.30.1.1"}}


def _echoing() -> ApplicationEntity:
    entity = ApplicationEntity("TEST")
    entity.add_requested_context("1.2.840.10008.1.1")
    return entity


def test_fetched_files_are_as_the_archive_holds_them(pacs: Orthanc, films: list[Path], tmp_path: Path) -> None:
    settings = settings_for(tmp_path, ae_title="ORTHANC", url=pacs.url)
    assert fetch(settings, "1.2.10").exit_code == 0
    kept = [path for path in (tmp_path / "state" / "spool" / "instances").rglob("*.dcm")]  # noqa: C416
    originals = {str(dataset.SOPInstanceUID): dataset for dataset in map(dcmread, films)}
    assert len(kept) == 2
    for path in kept:
        dataset = dcmread(path)
        assert dataset == originals[str(dataset.SOPInstanceUID)]


def test_a_fetch_is_in_the_audit_trail_and_for_a_title_that_is_served(pacs: Orthanc, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, ae_title="ORTHANC", url=pacs.url)
    typo = fetch(settings, "1.2.10", "--called", "PELUCID")
    assert typo.exit_code == 2
    assert "'PELUCID' serves no pipeline; served are PELLUCID" in typo.output
    assert fetch(settings, "1.2.10").exit_code == 0
    kinds = [record.kind for record, _ in open_log(settings).records() if record.study == "1.2.10"]
    assert kinds == ["receiving", "received"]


@pytest.mark.parametrize("way", ["url", "get"])
def test_a_study_that_is_not_there_has_an_exit_code_of_its_own(way: str, pacs: Orthanc, tmp_path: Path) -> None:
    place = {"url": pacs.url} if way == "url" else {"host": "127.0.0.1", "port": pacs.port, "retrieve": "get"}
    assert fetch(settings_for(tmp_path, ae_title="ORTHANC", **place), "9.9.9").exit_code == 3


def test_what_cannot_come_is_told_with_the_reason(pacs: Orthanc, tmp_path: Path) -> None:
    nobody_listens = settings_for(tmp_path, ae_title="ORTHANC", host="127.0.0.1", port=pacs.port)
    done = fetch(nobody_listens, "1.2.30")
    assert done.exit_code == 1
    assert json.loads(done.stdout)[0]["missing"] == 2
    assert "C-MOVE" in json.loads(done.stdout)[0]["reason"]
    away = fetch(settings_for(tmp_path, ae_title="ORTHANC", host="127.0.0.1", port=1), "1.2.30")
    assert away.exit_code == 1
    assert "out of reach" in away.stdout
    assert fetch(nobody_listens, "../../etc").exit_code == 2


def test_an_announced_study_is_complete_as_soon_as_it_is_here(our_port: int, films: list[Path], tmp_path: Path) -> None:
    settings = settings_for(tmp_path, our_port=our_port, host="127.0.0.1", port=1)
    engine = open_database(settings.database_url)

    def is_complete() -> bool:
        with engine.connect() as connection:
            return connection.execute(select(studies.c.complete)).scalars().all() == [True]

    with listening(settings):
        assert comes_true(lambda: entity_reaches(_echoing(), our_port), 30)
        entity = ApplicationEntity("RIS")
        entity.add_requested_context(AVAILABILITY)
        association = entity.associate("127.0.0.1", our_port, ae_title="PELLUCID")
        answer, _ = association.send_n_create(availability("1.2.10", 2), AVAILABILITY, "1.2.3.4.5")
        assert answer.Status == 0x0000
        first, second = (film for film in films if film.name.startswith("1.2.10-"))
        send_files([first], "127.0.0.1", our_port, "PELLUCID", "TEST")
        assert not comes_true(is_complete, 1.0)
        # The quiet period is ten seconds; the announcement makes it unnecessary.
        send_files([second], "127.0.0.1", our_port, "PELLUCID", "TEST")
        assert comes_true(is_complete, 5.0)
        answer, _ = association.send_n_create(availability("1.2.10", 0), AVAILABILITY, "1.2.3.4.6")
        assert answer.Status == 0x0115
        association.release()
    engine.dispose()


def availability(study: str, count: int) -> Dataset:
    notice = Dataset()
    notice.ReferencedPerformedProcedureStepSequence = []
    notice.StudyInstanceUID = study
    series = Dataset()
    series.SeriesInstanceUID = f"{study}.1"
    series.ReferencedSOPSequence = [reference(f"{study}.1.{index}") for index in range(count)]
    notice.ReferencedSeriesSequence = [series]
    return notice


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CR
    item.ReferencedSOPInstanceUID = uid
    item.InstanceAvailability = "ONLINE"
    item.RetrieveAETitle = "PACS"
    return item
