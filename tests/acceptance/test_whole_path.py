"""A real Orthanc routes studies; the explanation comes back into the same study."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from require import require_tool

from service.records import JobState
from workers.phantom.files import write_samples
from workers.sandbox import PACS_AE, OrthancPacs, Sandbox, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PELLUCID = [sys.executable, "-c", "from service.cli import main; main()"]

# Orthanc stores what it receives and sends each new instance to Pellucid at once; what came from there as a
# result is not sent again by Orthanc's own rule, but `test_results_that_come_back…` sends it on purpose.
AUTOROUTE = """
function OnStoredInstance(instanceId, tags, metadata, origin)
    if origin['RequestOrigin'] == 'DicomProtocol' and origin['RemoteAet'] == 'MODALITY' then
        SendToModality(instanceId, 'pellucid')
    end
end
"""


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPacs]:
    require_tool("Orthanc")
    folder = tmp_path_factory.mktemp("orthanc")
    script = folder / "autoroute.lua"
    script.write_text(AUTOROUTE)
    pellucid_port = free_port()
    pacs = OrthancPacs(
        folder,
        extra={
            "LuaScripts": [str(script)],
            "DicomModalities": {"pellucid": ["PELLUCID", "127.0.0.1", pellucid_port]},
            "StableAge": 1,
        },
    )
    pacs.pellucid_port = pellucid_port  # type: ignore[attr-defined]
    yield pacs
    pacs.stop()


@pytest.fixture(scope="module")
def service(orthanc: OrthancPacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    port = str(orthanc.pellucid_port)  # type: ignore[attr-defined]
    sandbox = Sandbox(
        tmp_path_factory.mktemp("service"),
        pacs_port=orthanc.port,
        settings={"PELLUCID__LISTENER__PORT": port},
    )
    sandbox.port = int(port)
    sandbox.start()
    sandbox.wait_ready()
    yield sandbox
    sandbox.stop()


def send_with_dcmtk(files: list[Path], port: int, *, called: str, calling: str) -> None:
    command = [require_tool("dcmsend"), "-aet", calling, "-aec", called, "--no-halt", "127.0.0.1", str(port)]
    subprocess.run([*command, *map(str, files)], check=True, capture_output=True)


def study_in_orthanc(orthanc: OrthancPacs, study_uid: str) -> list[str]:
    (match,) = [entry for entry in orthanc.get("/tools/lookup", study_uid.encode()) if entry["Type"] == "Study"]
    instances = orthanc.get(f"{match['Path']}/instances")
    return sorted(str(entry["MainDicomTags"]["SOPInstanceUID"]) for entry in instances)


def explained(orthanc: OrthancPacs, service: Sandbox, file: Path) -> list[bytes]:
    """Send a film to Orthanc as a modality does; return what came back into its study."""
    source = dcmread(file, stop_before_pixels=True)
    send_with_dcmtk([file], orthanc.port, called=PACS_AE, calling="MODALITY")

    def back() -> bool:
        return len(study_in_orthanc(orthanc, source.StudyInstanceUID)) >= 3

    wait_until(back, timeout_s=150, what="no explanation came back")
    uids = study_in_orthanc(orthanc, source.StudyInstanceUID)
    assert source.SOPInstanceUID in uids
    results = [orthanc.fetch(uid) for uid in uids if uid != source.SOPInstanceUID]
    return [content for content in results if content]


def check_results(source: Path, results: list[bytes], folder: Path) -> None:
    film = dcmread(source, stop_before_pixels=True)
    assert len(results) == 2
    for number, content in enumerate(results):
        result = dcmread(io.BytesIO(content))
        assert result.StudyInstanceUID == film.StudyInstanceUID
        assert result.get("PatientID", "") == film.get("PatientID", "")
        assert str(result.get("PatientName", "")) == str(film.get("PatientName", ""))
        assert result.SeriesInstanceUID != film.SeriesInstanceUID
        assert film.SOPInstanceUID in str(result)
        path = folder / f"{number}.dcm"
        path.write_bytes(content)
        found = subprocess.run([require_tool("dciodvfy"), str(path)], check=False, capture_output=True, text=True)
        assert [line for line in found.stderr.splitlines() if line.startswith("Error")] == []
    assert {dcmread(io.BytesIO(content)).Modality for content in results} & {"SR"}


def test_a_phantom_that_orthanc_routes_comes_back_explained(
    orthanc: OrthancPacs, service: Sandbox, tmp_path: Path
) -> None:
    (film,) = write_samples(tmp_path / "film", count=1, seed=3)
    check_results(film, explained(orthanc, service, film), tmp_path)


@pytest.mark.parametrize("name", ["nih-dx-sc-sopclass.dcm", "philips-mono1-15bit-j2k.dcm"])
def test_a_real_film_that_orthanc_routes_comes_back_explained(
    orthanc: OrthancPacs, service: Sandbox, shared_dicom: Path, tmp_path: Path, name: str
) -> None:
    film = shared_dicom / "chest" / name
    check_results(film, explained(orthanc, service, film), tmp_path)


def test_results_that_come_back_are_stored_and_never_processed(
    orthanc: OrthancPacs, service: Sandbox, tmp_path: Path
) -> None:
    (film,) = write_samples(tmp_path / "film", count=1, seed=4)
    results = explained(orthanc, service, film)
    before = len(service.reports.jobs())
    files = []
    for number, content in enumerate(results):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(content)
    # twice: as our ledger knows it, and with a new UID, as a copy that another system made
    send_with_dcmtk(files, service.port, called="PELLUCID", calling=PACS_AE)
    copy = dcmread(files[0])
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = "2.25.123456789"
    copy.save_as(files[0])
    send_with_dcmtk(files[:1], service.port, called="PELLUCID", calling=PACS_AE)
    time.sleep(3.5)
    assert len(service.reports.jobs()) == before


def test_what_cannot_be_analysed_is_refused_with_the_reason(service: Sandbox, shared_dicom: Path) -> None:
    dog = shared_dicom / "not-a-chest" / "dog-thorax-lateral-dx.dcm"
    slices = sorted((shared_dicom / "ct-series").glob("*.dcm"))
    before = len(service.reports.jobs())
    send_with_dcmtk([dog, *slices], service.port, called="PELLUCID", calling=PACS_AE)
    reports = service.wait_settled(jobs=before + 2)[:2]
    assert {report.job.state for report in reports} == {JobState.REFUSED}
    reasons = " | ".join(report.job.reason for report in reports)
    assert "animal" in reasons
    assert "modality CT" in reasons


def test_a_second_serve_on_the_same_spool_says_so(service: Sandbox) -> None:
    second = subprocess.run(
        [*PELLUCID, "serve"],
        check=False,
        capture_output=True,
        text=True,
        env=service.environment,
        timeout=60,
    )
    assert second.returncode == 2
    assert "another 'pellucid serve'" in second.stderr


def test_a_worker_that_is_killed_loses_no_job_and_doubles_none(
    orthanc: OrthancPacs, service: Sandbox, tmp_path: Path
) -> None:
    films = write_samples(tmp_path / "film", count=3, seed=5)
    before = len(service.reports.jobs())
    send_with_dcmtk(films, service.port, called="PELLUCID", calling=PACS_AE)
    for process in service.reports.alive(within_s=20):
        if process.name == "worker":
            os.kill(process.pid, signal.SIGKILL)
    reports = service.wait_settled(jobs=before + 3, timeout_s=150)[:3]
    assert [report.job.state for report in reports] == [JobState.DONE] * 3
    for report in reports:
        assert report.delivered == 2
        for entry in service.reports.objects_of(report.job.id):
            assert orthanc.fetch(entry.sop_instance_uid) is not None


def test_a_destination_that_is_down_gets_everything_when_it_is_up(tmp_path: Path) -> None:
    require_tool("Orthanc")
    port = free_port()
    sandbox = Sandbox(
        tmp_path / "service",
        pacs_port=port,
        settings={"PELLUCID__SENDER__FIRST_RETRY_S": "0.2", "PELLUCID__SENDER__LONGEST_RETRY_S": "1.0"},
    )
    (film,) = write_samples(tmp_path / "film", count=1, seed=6)
    try:
        sandbox.start()
        sandbox.wait_ready()
        send_with_dcmtk([film], sandbox.port, called="PELLUCID", calling=PACS_AE)
        wait_until(lambda: bool(_trouble(sandbox)), timeout_s=60, what="no trouble was noted")
        pacs = OrthancPacs(tmp_path / "orthanc", port=port)
        try:
            (report,) = sandbox.wait_settled(jobs=1)
            assert report.delivered == 2
            assert all(pacs.fetch(entry.sop_instance_uid) for entry in sandbox.reports.objects_of(report.job.id))
        finally:
            pacs.stop()
    finally:
        sandbox.stop()


def _trouble(sandbox: Sandbox) -> str:
    reports = sandbox.reports.jobs()
    return reports[0].delivery_reason if reports else ""


def test_redis_and_postgresql_change_two_settings_and_nothing_else(
    tmp_path: Path, postgresql_url: str, redis_url: str
) -> None:
    require_tool("Orthanc")
    pacs = OrthancPacs(tmp_path / "orthanc")
    sandbox = Sandbox(
        tmp_path / "service",
        pacs_port=pacs.port,
        settings={
            "PELLUCID__LEDGER__DATABASE_URL": json.dumps(postgresql_url),
            "PELLUCID__QUEUE__BROKER_URL": json.dumps(redis_url),
        },
    )
    films = write_samples(tmp_path / "film", count=2, seed=8)
    try:
        sandbox.start()
        sandbox.wait_ready()
        send_with_dcmtk(films, sandbox.port, called="PELLUCID", calling=PACS_AE)
        reports = sandbox.wait_settled(jobs=2)
        assert [report.delivered for report in reports] == [2, 2]
        for report in reports:
            assert all(pacs.fetch(entry.sop_instance_uid) for entry in sandbox.reports.objects_of(report.job.id))
    finally:
        sandbox.stop()
        pacs.stop()


def test_the_demo_ends_with_every_object_in_the_pacs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [*PELLUCID, "demo", "--once", "--out", str(out)],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(out.glob("*.dcm"))) == 8
    assert len(list(out.glob("*.png"))) == 4
