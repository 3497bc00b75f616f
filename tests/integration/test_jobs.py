"""Jobs through the real worker code: spool, ledger, model, objects, outbox; no broker, no network."""

from __future__ import annotations

import hashlib
import io
import tomllib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, HTJ2KLossless, HTJ2KLosslessRPCL

from dicom_nodes.client import send_files
from service.audit.commands import details
from service.audit.digest import settings_digest
from service.audit.trail import open_log, open_trail
from service.intake import Intake
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.ledger.work import Work
from service.metrics import WorkerMetrics
from service.outbox import open_outbox
from service.pipelines import load_pipelines
from service.records import Instance, JobState
from service.settings import load_settings, packaged_config
from service.spool import open_spool
from tests.htj2k import compress
from tests.network import AE, station
from workers.phantom.files import write_samples
from workers.tasks import JobRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

PIPELINE = packaged_config() / "pipelines" / "chest-xray-pneumonia.toml"


class House:
    """A service without its processes, with a clock that the test moves."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.now = 1_770_000_000.0
        settings = load_settings(
            None,
            {
                "PELLUCID__STATE__DIRECTORY": f'"{folder}"',
                "PELLUCID__PIPELINES__DIRECTORY": f'"{_pipelines(folder, changes)}"',
            },
        )
        self.settings = settings
        self.folder = folder
        self.spool, self.outbox = open_spool(settings), open_outbox(settings)
        self.spool.prepare()
        self.engine: Engine = open_database(settings.database_url)
        clock = lambda: self.now  # noqa: E731
        self.arrivals, self.work = Arrivals(self.engine, clock), Work(self.engine, clock)
        self.reports = Reports(self.engine, clock)
        pipelines = load_pipelines(settings)
        self.intake = Intake(
            arrivals=self.arrivals,
            work=self.work,
            pipelines=pipelines,
            wake=lambda _job, _priority: None,
            quiet_period_s=10,
        )
        self.audit = open_log(settings)
        self.registry = CollectorRegistry()
        self.runner = JobRunner(
            settings=settings,
            pipelines=pipelines,
            work=self.work,
            spool=self.spool,
            outbox=self.outbox,
            trail=open_trail(settings, "worker"),
            metrics=WorkerMetrics(self.registry),
        )

    def receive(self, file: Path, association: str = "a") -> None:
        header = dcmread(file, stop_before_pixels=True)
        incoming = self.spool.receive()
        incoming.write(file.read_bytes())
        key = self.spool.keep(
            incoming, study_instance_uid=header.StudyInstanceUID, sop_instance_uid=header.SOPInstanceUID
        )
        instance = Instance(
            sop_instance_uid=header.SOPInstanceUID,
            sop_class_uid=header.SOPClassUID,
            study_instance_uid=header.StudyInstanceUID,
            series_instance_uid=header.SeriesInstanceUID,
            transfer_syntax_uid=header.file_meta.TransferSyntaxUID,
            modality=header.Modality,
            sha256=incoming.sha256,
            size=incoming.size,
            key=key,
            calling_ae="PACS",
            called_ae="PELLUCID",
            address="127.0.0.1",
            received_at=datetime.fromtimestamp(self.now, UTC),
        )
        self.arrivals.record(instance, association=association, association_expires_at=self.now + 30)
        self.arrivals.close_association(association)

    def work_off(self) -> list[JobState | None]:
        self.now += 11
        self.intake.run_once()
        return [
            self.runner.run(report.job.id)
            for report in reversed(self.reports.jobs())
            if report.job.state is JobState.QUEUED
        ]

    def objects(self, number: int = 0) -> list[bytes]:
        job = self.reports.jobs()[number].job
        return [(self.folder / "outbox" / entry.key).read_bytes() for entry in self.reports.objects_of(job.id)]


def _pipelines(folder: Path, changes: dict[str, object]) -> Path:
    """Write the shipped pipeline with changes of single lines."""
    text = PIPELINE.read_text()
    for key, value in changes.items():
        old = next(line for line in text.splitlines() if line.startswith(f"{key} = "))
        text = text.replace(old, f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}")
    assert tomllib.loads(text)
    target = folder / "pipelines" / PIPELINE.name
    target.parent.mkdir(parents=True)
    target.write_text(text)
    return target.parent


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    """Two films of one study, the second without its preamble's file name: only the study's UID is shared."""
    first, second = write_samples(tmp_path / "films", count=2, seed=21, size=(256, 256))
    study = dcmread(first).StudyInstanceUID
    moved = dcmread(second)
    moved.StudyInstanceUID = study
    moved.save_as(second)
    return [first, second]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    yield made
    made.engine.dispose()


def test_a_repeated_job_writes_equal_bytes(tmp_path: Path, films: list[Path], house: House) -> None:
    again = House(tmp_path / "again")
    for place in (house, again):
        place.receive(films[0])
        assert place.work_off() == [JobState.DONE]
    digests = [[hashlib.sha256(data).hexdigest() for data in place.objects()] for place in (house, again)]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 2
    again.engine.dispose()


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL])
def test_a_film_in_high_throughput_jpeg_2000_gets_the_objects_of_the_plain_one(
    tmp_path: Path, films: list[Path], house: House, syntax: str
) -> None:
    house.receive(films[0])
    assert house.work_off() == [JobState.DONE]
    film = dcmread(films[0])
    compress(film, syntax)
    packed = tmp_path / "packed.dcm"
    film.save_as(packed)
    place = House(tmp_path / "packed")
    with station(tmp_path / "listener") as entrance:
        (outcome,) = send_files([packed], "127.0.0.1", entrance.port, AE, "PACS")
        assert outcome.status == 0x0000
        (arrived,) = entrance.files()
        received = dcmread(arrived)
        assert (received.file_meta.TransferSyntaxUID, received.PixelData) == (syntax, film.PixelData)
        place.receive(arrived)
    assert place.work_off() == [JobState.DONE]
    assert place.objects() == house.objects()
    place.engine.dispose()


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.204"])
def test_pixels_that_no_decoder_reads_end_their_job_with_what_to_do(
    house: House, films: list[Path], syntax: str
) -> None:
    film = dcmread(films[0])
    film.file_meta.TransferSyntaxUID = syntax
    film.PixelData = encapsulate([b"\0" * 100])
    film["PixelData"].VR = "OB"
    film.save_as(films[0])
    house.receive(films[0])
    assert house.work_off() == [JobState.REFUSED]
    reason = house.reports.jobs()[0].job.reason
    assert f"'{UID(syntax).name}'" in reason
    assert "have it sent uncompressed or as JPEG 2000" in reason


def test_pipelines_number_their_series_apart_and_versions_of_one_pipeline_share_them(
    tmp_path: Path, films: list[Path]
) -> None:
    series: dict[str, list[tuple[int, str]]] = {}
    versions: dict[str, dict[str, object]] = {
        "first": {},
        "later": {"version": "99"},
        "other": {"name": "other", "series_number": 9500},
        "moved": {"version": "99", "series_number": 9600},
    }
    for name, changes in versions.items():
        place = House(tmp_path / name, **changes)
        place.receive(films[0])
        assert place.work_off() == [JobState.DONE]
        written = [dcmread(io.BytesIO(data)) for data in place.objects()]
        series[name] = sorted((int(entry.SeriesNumber), str(entry.SeriesInstanceUID)) for entry in written)
        place.engine.dispose()
    numbers = {name: [number for number, _ in entries] for name, entries in series.items()}
    assert numbers == {"first": [9001, 9002], "later": [9001, 9002], "other": [9501, 9502], "moved": [9601, 9602]}
    assert series["first"] == series["later"]
    # All instances of a series have one number (PS3.3 C.7.3.1).
    uids = {uid: number for entries in series.values() for number, uid in entries}
    assert len(uids) == 6


def test_a_refused_study_gets_a_report_when_the_pipeline_says_so(tmp_path: Path, films: list[Path]) -> None:
    place = House(tmp_path / "house", report_refused=True)
    film = dcmread(films[0])
    film.ViewPosition = "LL"
    film.save_as(films[0])
    place.receive(films[0])
    assert place.work_off() == [JobState.REFUSED]
    assert "view LL" in place.reports.jobs()[0].job.reason
    (content,) = place.objects()
    path = tmp_path / "refusal.dcm"
    path.write_bytes(content)
    report = dcmread(path)
    assert report.StudyInstanceUID == film.StudyInstanceUID
    assert b"view LL" in content
    place.engine.dispose()


def test_results_of_others_in_a_study_get_no_note_that_they_were_not_analysed(
    tmp_path: Path, films: list[Path]
) -> None:
    place = House(tmp_path / "house", report_refused=True)
    picture = dcmread(films[0])
    picture.ConversionType, picture.BurnedInAnnotation = "WSD", "YES"
    picture.save_as(films[0])
    marks = dcmread(films[1])
    del marks.PixelData, marks.Rows, marks.Columns
    marks.Modality = "PR"
    marks.save_as(films[1])
    place.receive(films[1])
    assert place.work_off() == [JobState.REFUSED]
    assert place.objects() == []
    place.receive(films[0], association="b")
    assert place.work_off() == [JobState.REFUSED]
    assert "workstation" in place.reports.jobs()[0].job.reason
    assert place.objects() == []
    place.engine.dispose()


def test_a_late_film_makes_a_result_that_names_the_one_it_replaces(tmp_path: Path, films: list[Path]) -> None:
    place = House(tmp_path / "house", input="study")
    place.receive(films[0])
    assert place.work_off() == [JobState.DONE]
    earlier = {entry.sop_instance_uid for entry in place.reports.objects_of(place.reports.jobs()[0].job.id)}
    place.receive(films[1], association="b")
    assert place.work_off() == [JobState.DONE]
    contents = place.objects()
    assert len(contents) == 4
    assert [report.job.state for report in place.reports.jobs()] == [JobState.DONE, JobState.SUPERSEDED]
    named = 0
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        result = dcmread(path)
        assert result.SOPInstanceUID not in earlier
        references = str(result.get("PredecessorDocumentsSequence", ""))
        named += any(uid in references for uid in earlier)
    assert named == 2
    place.engine.dispose()


def test_a_film_that_cannot_be_decoded_stays_and_its_job_says_why(films: list[Path], house: House) -> None:
    film = dcmread(films[0])
    film.PixelData = film.PixelData[:1000]
    film.save_as(films[0])
    house.receive(films[0])
    (state,) = house.work_off()
    report = house.reports.jobs()[0]
    assert state is JobState.REFUSED
    assert report.job.reason
    assert (
        house.spool.root / "instances" / house.arrivals.instances_of_study(film.StudyInstanceUID, "PELLUCID")[0].key
    ).is_file()


def test_the_audit_trail_names_inputs_model_and_objects_of_a_result(house: House, films: list[Path]) -> None:
    house.receive(films[0])
    assert house.work_off() == [JobState.DONE]
    job = house.reports.jobs()[0].job
    (record,) = [record for record, _ in house.audit.records() if record.kind == "result"]
    found = details(record)
    assert (record.study, record.job) == (job.study_instance_uid, job.id)
    assert found["model sha256"] == job.model_sha256
    assert found["settings sha256"] == settings_digest(house.settings)
    (uid,) = job.sop_instance_uids
    assert found[f"input {uid} sha256"] == hashlib.sha256(films[0].read_bytes()).hexdigest()
    for entry in house.reports.objects_of(job.id):
        content = (house.folder / "outbox" / entry.key).read_bytes()
        assert found[f"object {entry.sop_instance_uid} sha256"] == hashlib.sha256(content).hexdigest()


def test_a_worker_counts_verdicts_stages_and_refusals(house: House, films: list[Path], shared_dicom: Path) -> None:
    house.receive(films[0])
    house.receive(shared_dicom / "not-a-chest" / "dog-thorax-lateral-dx.dcm")
    assert set(house.work_off()) == {JobState.DONE, JobState.REFUSED}
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for metric in house.registry.collect()
        for sample in metric.samples
    }
    pipeline = PIPELINE.stem
    assert sum(value for key, value in samples.items() if key[0] == "pellucid_verdicts_total") >= 1
    assert samples["pellucid_refusals_total", pipeline, "species"] == 1
    assert samples["pellucid_jobs_ended_total", pipeline, "done"] == 1
    for stage in ("waiting", "analysing", "explaining", "writing"):
        assert samples["pellucid_stage_seconds_count", stage] >= 1
