"""Series through the real worker code, from files to objects, and jobs that outlived their model."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
from integration.test_jobs import House
from pydicom import dcmread

from dicom_nodes.objects.phantom_series import PhantomSeries, write_phantom_series
from service.intake import new_job
from service.pipelines import load_pipelines
from service.records import JobState
from workers.phantom.files import write_samples
from workers.phantom.head import make_brain_mr, make_head_ct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from workers.phantom.head import HeadPhantom

CT = {"model": "head-ct-bleed-demo", "input": "study", "modalities": ["CT"], "explainers": ["grad-cam"]}
MR = {"model": "brain-mr-tumour-demo", "input": "study", "modalities": ["MR"], "explainers": ["grad-cam"]}


def head_files(folder: Path, phantom: HeadPhantom, modality: str, tilt: float = 0.0) -> list[Path]:
    series = PhantomSeries(
        volume=phantom.volume,
        modality="CT" if modality == "CT" else "MR",
        positions_mm=phantom.positions_mm,
        pixel_mm=phantom.pixel_mm,
        name=folder.name,
        number=1,
        taken_at=datetime(2026, 1, 5, 9, 0),  # noqa: DTZ001 - DICOM's dates are local by definition
        tilt_degrees=tilt,
    )
    return write_phantom_series(folder, series)


def receive(place: House, files: Sequence[Path]) -> None:
    for number, path in enumerate(files):
        place.receive(path, association=f"a{number}")


@pytest.fixture
def houses() -> Iterator[list[House]]:
    made: list[House] = []
    yield made
    for place in made:
        place.engine.dispose()


def test_a_ct_series_gives_one_result_that_names_the_slices(tmp_path: Path, houses: list[House]) -> None:
    place = House(tmp_path / "house", **CT)
    houses.append(place)
    files = head_files(tmp_path / "ct", make_head_ct(910_000, bleed=True), "CT", tilt=12.0)
    receive(place, sorted(files))
    assert place.work_off() == [JobState.DONE]
    datasets = [dcmread(io.BytesIO(content)) for content in place.objects()]
    assert {dataset.StudyInstanceUID for dataset in datasets} == {dcmread(files[0]).StudyInstanceUID}
    assert {str(dataset.Modality) for dataset in datasets} >= {"SR"}
    assert any(str(dataset.Modality) != "SR" for dataset in datasets)


def test_an_mr_volume_gives_one_result(tmp_path: Path, houses: list[House]) -> None:
    place = House(tmp_path / "house", **MR)
    houses.append(place)
    receive(place, head_files(tmp_path / "mr", make_brain_mr(910_002, tumour=True), "MR"))
    assert place.work_off() == [JobState.DONE]
    assert len(place.objects()) >= 2


def test_a_study_without_enough_slices_is_refused_with_what_was_left_out(tmp_path: Path, houses: list[House]) -> None:
    place = House(tmp_path / "house", **CT)
    houses.append(place)
    receive(place, head_files(tmp_path / "ct", make_head_ct(910_004, bleed=False), "CT")[:3])
    assert place.work_off() == [JobState.REFUSED]
    assert "the longest has 3" in place.reports.jobs()[0].job.reason


@pytest.mark.parametrize(("folder", "changes"), [("ct-series", CT), ("mr-series", MR)])
def test_real_series_run_through_without_error(
    tmp_path: Path, houses: list[House], shared_dicom: Path, folder: str, changes: dict[str, object]
) -> None:
    place = House(tmp_path / "house", **changes)
    houses.append(place)
    receive(place, sorted((shared_dicom / folder).glob("*.dcm")))
    assert place.work_off() == [JobState.DONE]
    job = place.reports.jobs()[0].job
    assert "not written" not in job.reason
    assert ("slice distances from 1.1 to 7.0 mm" in job.reason) == (folder == "ct-series")
    assert len(place.objects()) >= 2


@pytest.mark.parametrize(("column", "value"), [("model_sha256", "0" * 64), ("pipeline_version", "0")])
def test_a_job_made_for_another_model_is_replaced_not_run(
    tmp_path: Path, houses: list[House], column: str, value: str
) -> None:
    place = House(tmp_path / "house")
    houses.append(place)
    place.receive(write_samples(tmp_path / "films", count=1, seed=5, size=(256, 256))[0])
    # As if the service had been stopped with the job in its queue and started with another package.
    fresh = place.arrivals.unassigned()
    (entry,) = load_pipelines(place.settings)
    now = new_job(entry, fresh)
    place.work.assign([replace(now, id="old", **{column: value})], fresh)
    assert place.runner.run("old") is JobState.SUPERSEDED
    by_id = {report.job.id: report.job for report in place.reports.jobs()}
    assert f"replaced by job {now.id}" in by_id["old"].reason
    assert by_id[now.id].state is JobState.QUEUED
    assert place.runner.run(now.id) is JobState.DONE
    assert place.reports.objects_of("old") == []
    assert len(place.reports.objects_of(now.id)) == 2


def test_a_colour_film_is_refused_and_a_grey_one_stored_as_colour_is_read(tmp_path: Path, houses: list[House]) -> None:
    film = write_samples(tmp_path / "films", count=1, seed=5, size=(256, 256))[0]
    dataset = dcmread(film)
    grey = (dataset.pixel_array // 16).astype(np.uint8)
    for coloured in (False, True):
        pixels = np.repeat(grey[..., None], 3, axis=2)
        if coloured:
            pixels[..., 0] = 255 - pixels[..., 0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = pixels.tobytes()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{77 + coloured}"
        path = tmp_path / f"{coloured}.dcm"
        dataset.save_as(path)
        place = House(tmp_path / f"house-{coloured}")
        houses.append(place)
        place.receive(path)
        assert place.work_off() == [JobState.REFUSED if coloured else JobState.DONE]
        assert ("colour" in place.reports.jobs()[0].job.reason) is coloured
