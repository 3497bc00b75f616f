from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_nodes.objects.read import read_header, read_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import FileDataset

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]

RAMP = np.array([[0, 100, 200, 300], [400, 500, 600, 700]], dtype=np.uint16)


def test_the_header_says_what_eligibility_asks(source: Make, saved: Save) -> None:
    dataset = source(
        RAMP, ViewPosition="PA", ImageLaterality="U", PatientAge="018M", PatientSpeciesDescription="Canine"
    )
    dataset.SeriesDescription, dataset.ConversionType = "Thorax", "WSD"
    _, header = read_header(saved(dataset))
    assert (header.modality, header.body_part, header.view_position) == ("CR", "CHEST", "PA")
    assert (header.rows, header.columns, header.frames, header.laterality) == (2, 4, 1, "U")
    assert (header.age_years, header.species) == (1.5, "Canine")
    assert header.patient_orientation == ("L", "F")
    assert (header.descriptions, header.conversion_type) == (("Thorax",), "WSD")


def test_a_human_has_no_species_and_an_age_from_the_dates(source: Make, saved: Save) -> None:
    _, header = read_header(saved(source(RAMP, PatientSpeciesDescription="Homo sapiens")))
    assert header.species == ""
    assert header.age_years == pytest.approx(56.9, abs=0.1)


def test_a_picture_with_words_burned_in_or_derived_from_images_says_so(source: Make, saved: Save) -> None:
    _, plain = read_header(saved(source(RAMP, BurnedInAnnotation="NO")))
    _, annotated = read_header(saved(source(RAMP, BurnedInAnnotation="YES")))
    _, made = read_header(saved(source(RAMP, SourceImageSequence=[Dataset()])))
    _, derived = read_header(saved(source(RAMP, ImageType=["DERIVED", "SECONDARY", "AI"])))
    _, processed = read_header(saved(source(RAMP, ImageType=["DERIVED", "PRIMARY"])))
    assert [header.marked_up for header in (plain, annotated, made, derived, processed)] == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": ["0.2", "0.1"], "ImagerPixelSpacing": ["0.3", "0.3"]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": ["0.3", "0.3"]}, (0.3, 0.3)),
        ({"PixelSpacing": ["0.000", "0.000"]}, None),
        ({}, None),
    ],
)
def test_spacing_is_what_the_source_says(
    source: Make, saved: Save, attributes: dict[str, list[str]], expected: tuple[float, float] | None
) -> None:
    assert read_image(saved(source(RAMP, **attributes))).image.pixel_spacing_mm == expected


def test_code_strings_cannot_fill_or_forge_a_log(source: Make, saved: Save) -> None:
    dataset = source(RAMP)
    dataset.add_new("BodyPartExamined", "UT", "knee\nadmitted: " + "x" * 30000)
    dataset.add_new("ViewPosition", "LO", "pa")
    _, header = read_header(saved(dataset))
    assert header.body_part == "KNEE?ADMITTED? X"
    assert header.view_position == "PA"


@pytest.mark.parametrize("values", [["1e-9", "1"], ["1e-30", "1e-30"], ["1e30", "1e30"], ["50", "1"], ["0", "1"]])
def test_a_spacing_that_no_detector_has_reads_as_absent(source: Make, saved: Save, values: list[str]) -> None:
    assert read_image(saved(source(RAMP, PixelSpacing=values))).image.pixel_spacing_mm is None
