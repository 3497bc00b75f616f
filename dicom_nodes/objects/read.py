"""From a Part 10 file to its header and its grey values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_nodes.objects.attributes import SPACINGS, code_string, integer, items, macro, spacing, text, texts
from dicom_nodes.objects.decode import stored_values
from dicom_nodes.objects.grey import grey_values
from dicom_nodes.objects.part10 import read_part10, tolerant
from service.errors import NotEligibleError
from service.images import Image, ImageHeader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydicom import Dataset

_HUMAN = re.compile(r"homo\s+sapiens|human", re.IGNORECASE)
_AGE = re.compile(r"(\d{1,3})([DWMY]?)")
_UNITS_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0, "": 1.0}
_DESCRIPTIONS = (
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
)


_REGIONS = dict.fromkeys(
    ["51185008", "43799004", "302551006", "816094009", "39607008", "T-D3000", "T-28000"], "CHEST"
) | {
    "69536005": "HEAD",
    "T-D1100": "HEAD",
    "12738006": "BRAIN",
    "T-A0100": "BRAIN",
    "89546000": "SKULL",
    "T-11100": "SKULL",
}
"""SNOMED CT and SRT codes (PS3.16 annex L) of what models read: thorax and lung, head, brain, skull."""
_VIEWS = dict.fromkeys(["399348003", "R-10206", "ANTERO-POSTERIOR", "ANTEROPOSTERIOR"], "AP") | dict.fromkeys(
    ["272479007", "R-10214", "POSTERO-ANTERIOR", "POSTEROANTERIOR"], "PA"
)
"""Of CID 4010, likewise, and their meanings; others are told by what they mean."""
_FOR_PROCESSING = frozenset(f"1.2.840.10008.5.1.4.1.1.1.{number}.1" for number in (1, 2, 3))
"""Digital X-Ray, mammography and intra-oral images For Processing."""


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """One source instance: what it says of itself, without pixel data, and its grey values."""

    header: Dataset
    image: Image


def read_header(path: Path) -> tuple[Dataset, ImageHeader]:
    """Read everything before the pixel data.

    Returns:
        The data set and the summary of it that pipelines select by.

    Raises:
        InvalidInstanceError: no readable DICOM instance, or one that is made to exhaust the reader.
    """
    dataset = read_part10(path, pixels=False)
    with tolerant():
        return dataset, image_header(dataset)


def read_image(path: Path) -> SourceImage:
    """Read one frame of grey values in MONOCHROME2 sense on the source's grid.

    Raises:
        InvalidInstanceError: no readable DICOM instance.
        NotEligibleError: no pixels, several frames, or a kind of pixel that has no grey values.
        UndecodableError: the pixels are truncated, damaged, too many, or in a form nobody decodes.
    """
    dataset, header = read_header(path)
    if header.rows < 1 or header.columns < 1:
        raise NotEligibleError("The instance has no image pixels.")
    if header.frames > 1:
        raise NotEligibleError(f"The instance has {header.frames} frames; one is expected.")
    with tolerant():
        values, grey = grey_values(dataset, stored_values(path, dataset))
        measures = macro(dataset, "PixelMeasuresSequence")
        image = Image(
            header=header,
            grey=grey,
            values=values,
            pixel_spacing_mm=spacing(measures, *SPACINGS),
        )
    return SourceImage(header=dataset, image=image)


def image_header(dataset: Dataset) -> ImageHeader:
    """Summarise a data set for eligibility and captions."""
    return ImageHeader(
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        sop_class_uid=text(dataset, "SOPClassUID"),
        conversion_type=code_string(dataset, "ConversionType"),
        marked_up=_marked_up(dataset),
        modality=code_string(dataset, "Modality"),
        body_part=code_string(dataset, "BodyPartExamined") or _coded(dataset, "AnatomicRegionSequence", _REGIONS),
        view_position=code_string(dataset, "ViewPosition") or _coded(dataset, "ViewCodeSequence", _VIEWS),
        patient_orientation=texts(dataset, "PatientOrientation"),
        laterality=text(dataset, "ImageLaterality") or text(dataset, "Laterality"),
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        frames=max(1, integer(dataset, "NumberOfFrames", 1)),
        samples_per_pixel=integer(dataset, "SamplesPerPixel", 1),
        photometric_interpretation=text(dataset, "PhotometricInterpretation").upper(),
        species=_species(dataset),
        age_years=_age_years(dataset),
        descriptions=tuple(filter(None, (text(dataset, keyword) for keyword in _DESCRIPTIONS))),
        study_description=text(dataset, "StudyDescription"),
        for_processing=_for_processing(dataset),
    )


def _coded(dataset: Dataset, keyword: str, known: Mapping[str, str]) -> str:
    """Return the term for a coded value, its own meaning where we know none; empty where there is no code."""
    for item in items(dataset, keyword)[:1]:
        meaning = text(item, "CodeMeaning").upper()
        return known.get(text(item, "CodeValue")) or known.get(meaning, meaning)
    return ""


def _for_processing(dataset: Dataset) -> bool:
    intent = code_string(dataset, "PresentationIntentType")
    return intent == "FOR PROCESSING" or text(dataset, "SOPClassUID") in _FOR_PROCESSING


def _marked_up(dataset: Dataset) -> bool:
    burned_in = code_string(dataset, "BurnedInAnnotation") == "YES"
    derived = {"DERIVED", "SECONDARY"} <= {value.upper() for value in texts(dataset, "ImageType")}
    return burned_in or derived or bool(items(dataset, "SourceImageSequence"))


def _species(dataset: Dataset) -> str:
    coded = items(dataset, "PatientSpeciesCodeSequence")
    species = text(dataset, "PatientSpeciesDescription") or (text(coded[0], "CodeMeaning") if coded else "")
    return "" if _HUMAN.search(species) else species


def _age_years(dataset: Dataset) -> float | None:
    """Patient's Age, else from birth date and study date; the unit is years where none is written."""
    match = _AGE.fullmatch(text(dataset, "PatientAge"))
    if match:
        return int(match[1]) / _UNITS_PER_YEAR[match[2]]
    birth = text(dataset, "PatientBirthDate")
    study = text(dataset, "StudyDate")
    if not (re.fullmatch(r"\d{8}", birth) and re.fullmatch(r"\d{8}", study)):
        return None
    days = (int(study[:4]) - int(birth[:4])) * 365.25
    days += (int(study[4:6]) - int(birth[4:6])) * 30.44 + int(study[6:]) - int(birth[6:])
    return days / 365.25 if days >= 0 else None
