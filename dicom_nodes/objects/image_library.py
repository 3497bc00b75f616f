"""The images that a report was made from, with what they say of themselves: the image library (TID 1600)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_nodes.objects import codes
from dicom_nodes.objects import content_items as content
from dicom_nodes.objects.attributes import macro, spacing, texts
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import reference

if TYPE_CHECKING:
    from pydicom import Dataset

    from dicom_nodes.objects.subject import Subject
    from service.images import Image

_MODALITIES = {
    "CR": "Computed Radiography",
    "CT": "Computed Tomography",
    "DX": "Digital Radiography",
    "MR": "Magnetic Resonance",
    "RG": "Radiographic imaging",
}
"""CID 29, Acquisition Modality, as far as models read it."""
_PIXELS = codes.unit("{pixels}")


def image_library(about: Subject) -> Dataset:
    """Return the library with one group of every source image.

    Descriptors (TID 1602, 1603) are written where the source has them: radiographs often lack orientation and
    spacing, and an invented one would be worse than a missing one.
    """
    header, image = about.header, about.images[0]
    entries = [content.reference("IMAGE", None, reference(each)) for each in about.headers]
    group = content.container(dcm("126200", "Image Library Group"), [*_descriptors(header, image), *entries])
    return content.container(dcm("111028", "Image Library"), [group], template="1600")


def _descriptors(header: Dataset, image: Image) -> list[Dataset]:
    rows, columns = image.grey.shape
    numbers = {("110910", "Pixel Data Rows"): (rows, _PIXELS), ("110911", "Pixel Data Columns"): (columns, _PIXELS)}
    distances = spacing(macro(header, "PixelMeasuresSequence"), "PixelSpacing", "ImagerPixelSpacing")
    if distances:
        millimetre = codes.unit("mm")
        numbers[("111026", "Horizontal Pixel Spacing")] = (distances[1], millimetre)
        numbers[("111066", "Vertical Pixel Spacing")] = (distances[0], millimetre)
    return [
        *_coded(image),
        *_orientation(header),
        *(
            content.number(dcm(*name), value, unit, relationship=content.ACQUISITION)
            for name, (value, unit) in numbers.items()
        ),
    ]


def _coded(image: Image) -> list[Dataset]:
    modality, site = image.header.modality, codes.finding_site(image.header.body_part)
    found = []
    if modality in _MODALITIES:
        value = dcm(modality, _MODALITIES[modality])
        found.append(content.code(dcm("121139", "Modality"), value, relationship=content.ACQUISITION))
    if site:
        found.append(content.code(dcm("123014", "Target Region"), site, relationship=content.ACQUISITION))
    return found


def _orientation(header: Dataset) -> list[Dataset]:
    directions = texts(header, "PatientOrientation")
    if len(directions) != 2 or not all(directions):  # noqa: PLR2004 - row and column
        return []
    names = (dcm("111044", "Patient Orientation Row"), dcm("111043", "Patient Orientation Column"))
    return [
        content.text(name, value, relationship=content.ACQUISITION)
        for name, value in zip(names, directions, strict=True)
    ]
