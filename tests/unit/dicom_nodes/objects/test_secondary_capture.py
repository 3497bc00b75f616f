from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import dcmread
from pydicom.encaps import generate_frames

from dicom_nodes.objects import identity
from dicom_nodes.objects.overlay import render
from dicom_nodes.objects.read import read_image
from dicom_nodes.objects.secondary_capture import build, build_uncompressed
from dicom_nodes.objects.write import to_bytes
from service.records import OutboxObject
from service.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

EARLIER = OutboxObject(
    sop_instance_uid="1.2.3",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    study_instance_uid="1.2",
    series_instance_uid="1.2.9",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    job_id="job-0",
    kind="secondary-capture",
    key="k",
    sha256="",
    size=1,
)


def test_building_twice_gives_equal_bytes(source: Make, saved: Save, result: Results) -> None:
    path = saved(source())
    first, second = read_image(path), read_image(path)
    for builder in (build, build_uncompressed):
        one = to_bytes(builder(first.header, first.image, result(first.image)))
        two = to_bytes(builder(second.header, second.image, result(second.image)))
        assert one == two


def test_the_bytes_do_not_depend_on_the_process(source: Make, saved: Save, result: Results) -> None:
    """Hash seeds, dictionaries and clocks differ between processes; the objects must not."""
    path = saved(source())
    read = read_image(path)
    here = to_bytes(build_uncompressed(read.header, read.image, result(read.image)))
    rendered = render(read.header, read.image, result(read.image))
    code = (
        "import sys, hashlib; from PIL import Image; import numpy as np, io;"
        "p = Image.open(io.BytesIO(sys.stdin.buffer.read())); b = io.BytesIO();"
        "p.save(b, 'JPEG', quality=90, subsampling='4:2:2', optimize=True);"
        "print(hashlib.sha256(b.getvalue()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=rendered.png(),
            capture_output=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert here == to_bytes(build_uncompressed(read.header, read.image, result(read.image)))


def test_the_jpeg_shows_the_rendered_picture(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    dataset = dcmread(io.BytesIO(to_bytes(build(read.header, read.image, result(read.image)))))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    decoded = np.asarray(Picture.open(io.BytesIO(frame)).convert("RGB"), dtype=int)
    picture = render(read.header, read.image, result(read.image)).picture
    assert decoded.shape == (dataset.Rows, dataset.Columns, 3)
    assert np.abs(decoded - picture).mean() < 3


def test_the_uncompressed_picture_is_the_rendered_one(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    dataset = dcmread(io.BytesIO(to_bytes(build_uncompressed(read.header, read.image, result(read.image)))))
    assert np.array_equal(dataset.pixel_array, render(read.header, read.image, result(read.image)).picture)
    assert (dataset.PhotometricInterpretation, dataset.LossyImageCompression) == ("RGB", "00")


def test_lossy_attributes_tell_what_was_done(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    dataset = build(read.header, read.image, result(read.image))
    assert dataset.PhotometricInterpretation == "YBR_FULL_422"
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(dataset.LossyImageCompressionRatio) > 3


def test_a_lossy_source_stays_marked_as_lossy(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source(LossyImageCompression="01", LossyImageCompressionRatio="10")))
    dataset = build_uncompressed(read.header, read.image, result(read.image))
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionRatio) == ("01", 10)


def test_ten_megapixels_of_noise_stay_below_one_megabyte(source: Make, saved: Save, result: Results) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, size=(3600, 2800), dtype=np.uint16)
    read = read_image(saved(source(noise, BitsStored=12, HighBit=11)))
    data = to_bytes(build(read.header, read.image, result(read.image)))
    assert len(data) <= 1_000_000


def test_it_lies_in_the_study_in_a_series_of_its_own(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    dataset = build(read.header, read.image, result(read.image))
    assert dataset.StudyInstanceUID == read.header.StudyInstanceUID
    assert dataset.SeriesInstanceUID != read.header.SeriesInstanceUID
    assert (dataset.Modality, dataset.SeriesNumber) == ("CR", 9001)
    assert dataset.SeriesDescription == "AI heatmap (chest-xray-pneumonia)"
    assert dataset.ImageType == ["DERIVED", "SECONDARY"]
    assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == read.header.SOPInstanceUID
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == read.header.SeriesInstanceUID
    assert identity.is_our_equipment(dataset.Manufacturer, dataset.ManufacturerModelName)


def test_the_contributing_equipment_names_the_model(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source(TimezoneOffsetFromUTC="+0900")))
    (item,) = build(read.header, read.image, result(read.image)).ContributingEquipmentSequence
    purpose = item.PurposeOfReferenceCodeSequence[0]
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109102", "DCM")
    assert (item.Manufacturer, item.ManufacturerModelName) == ("Pellucid", "Compact ResNet")
    assert item.SoftwareVersions == ["1.0.0", "chest-xray-pneumonia 1"]
    assert item.ContributionDateTime == "20261123200509"


def test_dates_are_the_jobs_in_the_zone_of_the_source(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source(TimezoneOffsetFromUTC="+0900")))
    dataset = build(read.header, read.image, result(read.image))
    assert (dataset.ContentDate, dataset.ContentTime) == ("20261123", "200509")
    assert dataset.TimezoneOffsetFromUTC == "+0900"


@pytest.mark.parametrize("offset", ["", "+9900", "Z"])
def test_dates_are_in_the_zone_of_the_settings_where_the_source_names_none(
    source: Make, saved: Save, result: Results, offset: str
) -> None:
    read = read_image(saved(source(TimezoneOffsetFromUTC=offset) if offset else source()))
    made = result(read.image)
    worker = load_settings(None, {"PELLUCID__WORKER__TIME_ZONE": "Asia/Kolkata"}).worker
    dataset = build(read.header, read.image, dataclasses.replace(made, created_at=worker.local(made.created_at)))
    assert (dataset.ContentDate, dataset.ContentTime) == ("20261123", "163509")


CALIBRATED = {"PixelSpacing": ["0.2", "0.2"], "ImagerPixelSpacing": ["0.25", "0.25"]}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": ["0.2", "0.2"]}, {"PixelSpacing": 0.2}),
        # Equal ones say that nothing was corrected: the distance is the detector's, as the source's is.
        ({"ImagerPixelSpacing": ["0.2", "0.2"]}, {"PixelSpacing": 0.2, "ImagerPixelSpacing": 0.2}),
        (CALIBRATED, {"PixelSpacing": 0.2, "ImagerPixelSpacing": 0.25}),
        ({"NominalScannedPixelSpacing": ["0.2", "0.2"]}, {"NominalScannedPixelSpacing": 0.2}),
    ],
)
def test_a_distance_measured_on_the_picture_is_the_films_own(
    source: Make, saved: Save, result: Results, attributes: dict[str, list[str]], expected: dict[str, float]
) -> None:
    read = read_image(saved(source(np.zeros((2000, 1500), dtype=np.uint8), **attributes)))
    dataset = build(read.header, read.image, result(read.image))
    left, top, right, bottom = render(read.header, read.image, result(read.image)).original
    for keyword, millimetres in expected.items():
        row_mm, column_mm = (float(value) for value in dataset[keyword].value)
        assert (bottom - top) * row_mm == pytest.approx(2000 * millimetres)
        assert (right - left) * column_mm == pytest.approx(1500 * millimetres)
    keywords = {"PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"}
    assert {keyword for keyword in keywords if keyword in dataset} == set(expected)


def test_without_spacing_none_is_invented(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    dataset = build(read.header, read.image, result(read.image))
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        assert keyword not in dataset


@pytest.mark.parametrize(("declared", "expected"), [("NO", "NO"), ("YES", "YES"), (None, "YES")])
def test_burned_in_annotation_is_no_only_where_the_source_says_so(
    source: Make, saved: Save, result: Results, declared: str | None, expected: str
) -> None:
    attributes = {"BurnedInAnnotation": declared} if declared else {}
    read = read_image(saved(source(**attributes)))
    assert build(read.header, read.image, result(read.image)).BurnedInAnnotation == expected


def test_a_replacement_says_so(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    replaced = result(read.image, supersedes=(EARLIER,))
    assert "Replaces an earlier result" in build(read.header, read.image, replaced).ImageComments
    assert "Replaces" not in build(read.header, read.image, result(read.image)).ImageComments
    plain, noted = (render(read.header, read.image, each) for each in (result(read.image), replaced))
    assert noted.picture.shape[0] > plain.picture.shape[0]


def test_a_result_without_explanation_still_has_a_picture(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    bare = dataclasses.replace(result(read.image), attributions=())
    assert "with no explanation of" in build(read.header, read.image, bare).DerivationDescription


def test_no_patient_identity_is_drawn_or_described(source: Make, saved: Save, result: Results) -> None:
    one = read_image(saved(source()))
    first = render(one.header, one.image, result(one.image)).picture
    two = read_image(saved(source(PatientName="Other^Name", PatientID="9", AccessionNumber="Z")))
    assert np.array_equal(first, render(two.header, two.image, result(two.image)).picture)
    described = build(one.header, one.image, result(one.image))
    assert "Doe" not in described.DerivationDescription + described.ImageComments


def test_what_a_source_says_of_its_anatomy_is_written_only_where_it_is_sound(
    source: Make, saved: Save, result: Callable[..., Result]
) -> None:
    dataset = source(InstanceNumber=None)
    for keyword, value in (
        ("BodyPartExamined", "chest"),
        ("ImageLaterality", "Q"),
        ("PatientOrientation", ["??", "F"]),
        ("InstanceNumber", "99999999999"),
    ):
        dataset.add_new(keyword, "LO", value)
    read = read_image(saved(dataset))
    made = build(read.header, read.image, result(read.image))
    assert made.BodyPartExamined == "CHEST"
    assert "ImageLaterality" not in made
    assert not made.PatientOrientation
    assert made.InstanceNumber == 2**31 - 1
