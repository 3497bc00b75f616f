"""A series is what its geometry says, whatever the files are called, numbered and mixed with."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import dcmread

from dicom_nodes.objects.phantom_series import PhantomSeries, write_phantom_series
from dicom_nodes.objects.series import read_series
from service.errors import NotEligibleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset

    from dicom_nodes.objects.series import SourceSeries

TAKEN_AT = datetime(2026, 1, 5, 9, 0)  # noqa: DTZ001 - DICOM's dates are local by definition


def stack(
    folder: Path, name: str = "a", slices: int = 8, tilt: float = 0.0, positions: tuple[float, ...] = ()
) -> list[Path]:
    """Write a series whose every slice holds its own number as HU."""
    volume = np.zeros((slices, 32, 40), dtype=np.int16)
    volume += np.arange(slices, dtype=np.int16)[:, None, None] * 10
    volume[:, 8:16, 8:16] += 5
    series = PhantomSeries(
        volume=volume,
        modality="CT",
        positions_mm=positions or tuple(5.0 * index for index in range(slices)),
        pixel_mm=2.0,
        name=name,
        number=1,
        taken_at=TAKEN_AT,
        tilt_degrees=tilt,
    )
    return write_phantom_series(folder, series)


def change(path: Path, edit: Callable[[Dataset], None], to: Path | None = None) -> Path:
    dataset = dcmread(path)
    edit(dataset)
    target = to or path
    dataset.save_as(target)
    return target


def numbers(source: SourceSeries) -> list[int]:
    return [round(float(image.values.min()) / 10) for image in source.series.slices]


def test_slices_come_in_geometric_order_whatever_their_names_and_numbers(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    source = read_series(sorted(paths, key=lambda path: path.name))
    assert numbers(source) == list(range(8))
    assert [int(header.InstanceNumber) for header in source.headers] == list(range(8, 0, -1))
    assert source.series.slice_spacing_mm == pytest.approx(5.0)
    assert source.series.gantry_tilt_degrees == 0.0
    assert source.notes == ()


def test_the_order_of_arrival_changes_nothing(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    first, second = read_series(paths), read_series(reversed(paths))
    assert [h.SOPInstanceUID for h in first.headers] == [h.SOPInstanceUID for h in second.headers]


def test_a_tilted_gantry_is_measured_and_the_slices_displacement_kept(tmp_path: Path) -> None:
    series = read_series(stack(tmp_path, tilt=18.5)).series
    assert series.gantry_tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert np.diff(series.positions_mm) == pytest.approx(np.full(7, 5.0), abs=1e-3)
    assert np.diff([down for down, _ in series.offsets_mm]) == pytest.approx(
        np.full(7, 5.0 * np.tan(np.radians(18.5))), abs=1e-3
    )


def test_uneven_spacing_is_kept_and_said(tmp_path: Path) -> None:
    positions = (0.0, 5.0, 10.0, 15.0, 30.0, 35.0, 40.0, 45.0)
    source = read_series(stack(tmp_path, positions=positions))
    assert source.series.positions_mm == pytest.approx(positions)
    assert source.series.slice_spacing_mm is None
    assert source.notes == ("slice distances from 5.0 to 15.0 mm; slices may be missing at 1 places",)


def test_repeats_at_one_place_are_left_out_and_the_first_acquired_stays(tmp_path: Path) -> None:
    paths = stack(tmp_path / "a")

    def repeat(dataset: Dataset) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.4711"
        dataset.AcquisitionNumber = 2
        dataset.RescaleIntercept = "500"

    again = change(paths[3], repeat, to=tmp_path / "again.dcm")
    source = read_series([again, *paths])
    assert numbers(source) == list(range(8))
    assert source.notes == ("1 images left out: at a place that another slice has (a repeat, phase or echo)",)


def test_localisers_and_other_orientations_are_left_out_with_a_note(tmp_path: Path) -> None:
    paths = stack(tmp_path)

    def scout(dataset: Dataset) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def coronal(dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]

    def nowhere(dataset: Dataset) -> None:
        del dataset.ImagePositionPatient

    change(paths[0], scout)
    change(paths[1], coronal)
    change(paths[2], nowhere)
    source = read_series(paths)
    assert numbers(source) == [3, 4, 5, 6, 7]
    assert source.notes == (
        "1 images left out: localisers",
        "1 images left out: of another orientation or matrix",
        "1 images left out: without a position in the patient",
    )


def test_of_several_series_the_longest_original_one_is_read(tmp_path: Path) -> None:
    short, long = stack(tmp_path / "s", "short", 5), stack(tmp_path / "l", "long", 7)
    derived = stack(tmp_path / "d", "derived", 9)
    for path in derived:
        change(path, lambda dataset: setattr(dataset, "ImageType", ["DERIVED", "SECONDARY", "MPR"]))
    for order in ([*short, *long, *derived], [*derived, *long, *short]):
        source = read_series(order)
        assert len(source.series.slices) == 7
        assert source.notes == ("14 images left out: of another series of the study",)


def test_of_equal_series_the_lower_number_is_read(tmp_path: Path) -> None:
    later, earlier = stack(tmp_path / "l", "later"), stack(tmp_path / "e", "earlier")
    for path in later:
        change(path, lambda dataset: setattr(dataset, "SeriesNumber", 10))
    for path in earlier:
        change(path, lambda dataset: setattr(dataset, "SeriesNumber", 9))
    for order in ([*later, *earlier], [*earlier, *later]):
        assert {int(header.SeriesNumber) for header in read_series(order).headers} == {9}


def test_slices_of_another_pixel_size_belong_to_another_stack(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    for path in paths[:3]:
        change(path, lambda dataset: setattr(dataset, "PixelSpacing", ["1.5", "1.5"]))
    source = read_series(paths)
    assert numbers(source) == [3, 4, 5, 6, 7]
    assert source.notes == ("3 images left out: of another orientation or matrix",)


@pytest.mark.parametrize(
    "cosines", [["1", "0", "0", "0.5", "0.5", "0"], ["1", "0", "0", "0", "2", "0"], ["0", "0", "0", "0", "1", "0"]]
)
def test_directions_that_no_image_has_are_no_position(tmp_path: Path, cosines: list[str]) -> None:
    paths = stack(tmp_path)
    change(paths[0], lambda dataset: setattr(dataset, "ImageOrientationPatient", cosines))
    source = read_series(paths)
    assert numbers(source) == list(range(1, 8))
    assert source.notes == ("1 images left out: without a position in the patient",)


def test_an_image_of_several_frames_is_no_slice(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    change(paths[0], lambda dataset: setattr(dataset, "NumberOfFrames", 2))
    source = read_series(paths)
    assert numbers(source) == list(range(1, 8))
    assert source.notes == ("1 images left out: with several frames",)


def test_what_the_model_does_not_read_is_left_out_with_its_reason(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    with pytest.raises(NotEligibleError, match=r"no series of at least 2 slices.*8 images left out: modality CT"):
        read_series(paths, accepts=lambda header: f"modality {header.modality}: this model reads MR")


def test_too_few_slices_are_no_series(tmp_path: Path) -> None:
    with pytest.raises(NotEligibleError, match=r"at least 10 slices \(the longest has 8\)"):
        read_series(stack(tmp_path), minimum_slices=10)


def test_one_unreadable_slice_is_noted_and_many_end_it(tmp_path: Path) -> None:
    paths = stack(tmp_path, slices=12)
    change(paths[5], lambda dataset: setattr(dataset, "PixelData", b"\0\0"))
    source = read_series(paths)
    assert len(source.series.slices) == 11
    assert "1 images left out: unreadable" in source.notes
    for path in paths[:3]:
        change(path, lambda dataset: setattr(dataset, "PixelData", b"\0\0"))
    with pytest.raises(NotEligibleError, match="truncated"):
        read_series(paths)


def test_a_real_tilted_uneven_ct_is_read_whole(shared_dicom: Path) -> None:
    source = read_series((shared_dicom / "ct-series").glob("*.dcm"))
    assert len(source.series.slices) == 28
    assert source.series.gantry_tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert source.series.slice_spacing_mm is None
    assert np.all(np.diff(source.series.positions_mm) > 0)
    assert source.notes == ("slice distances from 1.1 to 7.0 mm",)


def test_a_real_mr_is_read_whole(shared_dicom: Path) -> None:
    source = read_series((shared_dicom / "mr-series").glob("*.dcm"))
    assert len(source.series.slices) == 12
    assert source.series.slice_spacing_mm == pytest.approx(1.0)


def test_images_of_two_patients_under_one_study_are_never_read_together(tmp_path: Path) -> None:
    paths = stack(tmp_path)

    def mistaken(dataset: Dataset) -> None:
        dataset.PatientID = "SOMEBODY-ELSE"

    change(paths[-1], mistaken)
    with pytest.raises(NotEligibleError, match="images of 2 patients came under one Study Instance UID") as refused:
        read_series(paths)
    assert "SOMEBODY" not in str(refused.value)
