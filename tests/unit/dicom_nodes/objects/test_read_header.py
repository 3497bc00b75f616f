from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_nodes.objects.read import image_header, read_header, read_image

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


def coded(keyword: str, value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    dataset = Dataset()
    setattr(dataset, keyword, [item])
    return dataset


@pytest.mark.parametrize(
    ("value", "meaning", "part"),
    [("51185008", "Thorax", "CHEST"), ("39607008", "Lung", "CHEST"), ("85562004", "Hand", "HAND"), ("", "", "")],
)
def test_a_body_part_may_be_stated_as_a_code(value: str, meaning: str, part: str) -> None:
    dataset = coded("AnatomicRegionSequence", value, meaning)
    assert image_header(dataset).body_part == part
    dataset.BodyPartExamined = "CHEST"
    assert image_header(dataset).body_part == "CHEST"


@pytest.mark.parametrize(
    ("value", "meaning", "view"),
    [
        ("272479007", "postero-anterior", "PA"),
        ("R-10206", "", "AP"),
        ("0", "Postero-anterior", "PA"),
        ("399198007", "right lateral", "RIGHT LATERAL"),
    ],
)
def test_a_view_may_be_stated_as_a_code(value: str, meaning: str, view: str) -> None:
    assert image_header(coded("ViewCodeSequence", value, meaning)).view_position == view


def test_what_a_detector_gave_for_processing_is_told_by_its_intent_or_its_class() -> None:
    dataset = Dataset()
    assert not image_header(dataset).for_processing
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1.1"
    assert image_header(dataset).for_processing
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    assert not image_header(dataset).for_processing
    dataset.PresentationIntentType = "FOR PROCESSING"
    assert image_header(dataset).for_processing
