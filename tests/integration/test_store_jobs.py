"""Jobs whose instances lie in an S3-compatible store that is away, or has lost or altered them; what doctor says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bucket import files
from prometheus_client import CollectorRegistry

from dicom_nodes.client import send_files
from dicom_nodes.doctor import State, diagnose
from service.audit.trail import open_trail
from service.intake import Intake
from service.ledger.report import Reports
from service.ledger.work import Work
from service.metrics import WorkerMetrics
from service.outbox import open_outbox
from service.pipelines import load_pipelines
from service.records import JobState
from service.settings import load_settings
from service.spool import open_spool
from tests.network import AE, cr_image, station, write_image
from workers.tasks import JobRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bucket import Bucket

    from service.records import Job
    from service.settings import Settings


class House:
    """A worker without its process, and one job about one film that came through a real listener's server."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.copies = settings.state.directory / "spool"
        with station(folder / "state", spool=open_spool(settings)) as running:
            film = write_image(folder / "film.dcm", cr_image())
            (outcome,) = send_files([film], "127.0.0.1", running.port, AE, "TEST")
            assert outcome.status == 0x0000
            arrivals = running.arrivals
            pipelines = load_pipelines(settings)
            self.work, self.reports = Work(arrivals.engine), Reports(arrivals.engine)
            Intake(
                arrivals=arrivals,
                work=self.work,
                pipelines=pipelines,
                wake=lambda _job, _priority: None,
                quiet_period_s=10,
            ).run_once()
        self._runner = JobRunner(
            settings=settings,
            pipelines=pipelines,
            work=self.work,
            spool=open_spool(settings),
            outbox=open_outbox(settings),
            trail=open_trail(settings, "worker"),
            metrics=WorkerMetrics(CollectorRegistry()),
        )

    @property
    def job(self) -> Job:
        (report,) = self.reports.jobs()
        return report.job

    def run(self) -> JobState | None:
        return self._runner.run(self.job.id)


@pytest.fixture
def settings(bucket: Bucket, tmp_path: Path) -> Settings:
    (tmp_path / "state").mkdir()
    variables = {
        "PELLUCID__STATE__DIRECTORY": str(tmp_path / "state"),
        "PELLUCID__WORKER__MAXIMUM_ATTEMPTS": "2",
        "PELLUCID__LISTENER__MINIMUM_FREE_MB": "0",
    }
    return load_settings(None, {**variables, **bucket.variables()})


@pytest.fixture
def house(settings: Settings, tmp_path: Path) -> Iterator[House]:
    made = House(settings, tmp_path)
    yield made
    made.reports.engine.dispose()


def test_a_job_says_what_is_wrong_with_its_instance_and_waits_for_a_store_that_is_away(
    house: House, bucket: Bucket
) -> None:
    (key,) = bucket.objects
    content = bytes(bucket.objects[key].value)

    bucket.refusal = (503, "SlowDown")
    assert [house.run() for _ in range(3)] == [JobState.QUEUED] * 3
    assert house.job.attempts == 0
    assert "cannot serve us now: see its own log (SlowDown, status 503)" in house.job.reason
    bucket.refusal = None

    bucket.replace(key, content[:-1] + b"\x01")
    assert [house.run(), house.run()] == [JobState.QUEUED, JobState.FAILED]
    assert "is not what arrived: restore it from a backup, then pellucid retry" in house.job.reason
    assert house.run() is None

    bucket.lose(key)
    house.work.retry(house.job.id)
    assert [house.run(), house.run()] == [JobState.QUEUED, JobState.FAILED]
    assert f"is missing in s3://{bucket.name}/site-a/spool: restore it" in house.job.reason

    # Restored, it is read again: so small a film is refused, by the model and not by the store.
    bucket.replace(key, content)
    house.work.retry(house.job.id)
    assert house.run() is JobState.REFUSED
    assert files(house.copies) == []


def test_doctor_tries_the_store_and_says_what_to_do(bucket: Bucket, settings: Settings) -> None:
    def found() -> dict[str, tuple[State, str, str]]:
        named = [entry for entry in diagnose(settings) if entry.name in ("store", "spool")]
        return {f"{entry.name} {entry.state}": (entry.state, entry.found, entry.advice) for entry in named}

    well = found()
    assert well["store ok"][1] == f"s3://{bucket.name}/site-a/doctor keeps, lists, gives and deletes files"
    assert "without TLS" in well["store warning"][1]
    assert well["spool ok"]
    assert bucket.objects == {}
    bucket.refusal = (403, "AccessDenied")
    assert "refuses us (AccessDenied)" in found()["store problem"][1]
    assert "what the bucket must allow" in found()["store problem"][2]
