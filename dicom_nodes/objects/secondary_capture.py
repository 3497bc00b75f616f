"""The picture that every viewer shows: a true-colour Secondary Capture (PS3.3 A.8, C.8.6), with pages if need be."""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image as Picture
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_nodes.objects import captions, codes, subject
from dicom_nodes.objects.anatomy import add_anatomy
from dicom_nodes.objects.attributes import SPACINGS, macro, spacing, text
from dicom_nodes.objects.derived import Kind, reference, start
from dicom_nodes.objects.lossy import add_lossy
from dicom_nodes.objects.pages import render_first, render_pages
from dicom_nodes.objects.panels import LARGEST_PANEL
from dicom_nodes.objects.part10 import tolerant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import FileDataset

    from dicom_nodes.objects.pages import Pages
    from dicom_nodes.objects.subject import Subject
    from service.images import Image, Series
    from service.results import Result

    Draw = Callable[..., Pages]

KIND = "secondary-capture"
SINGLE_KIND = "secondary-capture-single"
UNCOMPRESSED_KIND = "secondary-capture-uncompressed"
PLACE = 1
MAX_JPEG_BYTES = 900_000
"""Of all pages together: with the header, and a reference to each slice of a long series, below 1 MB."""
_QUALITIES = (90, 80, 70, 60, 50)
_PANELS = (LARGEST_PANEL, 832, 640, 512)
"""Sides of panels to try until the pages are small enough."""
_HOPELESS = 2.5
"""The lowest quality makes files about half as large as the highest: beyond that only smaller panels help."""
_PAGE_NUMBER_VECTOR = 0x00182001
_MODALITY = re.compile(r"[A-Z0-9 _]{1,16}")


@tolerant()
def build(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the picture as JPEG baseline, below 1 MB, which every viewer displays.

    With several explanations it is multi-frame: the default one large, then the methods side by side.

    Args:
        source: header of the analysed instance.
        image: its grey values.
        result: what was found.

    Returns:
        A file-ready data set.
    """
    return _jpeg(subject.of_image(source, image, subject.in_print(result)), KIND, render_pages)


@tolerant()
def build_single(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build only the first page, as JPEG baseline, for viewers that show no multi-frame pictures."""
    return _jpeg(subject.of_image(source, image, subject.in_print(result)), SINGLE_KIND, render_first)


@tolerant()
def build_uncompressed(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the pages as plain RGB, for archives that take nothing else; some 6 MB each."""
    return _plain(subject.of_image(source, image, subject.in_print(result)))


@tolerant()
def build_series(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the slices that mattered, one page each, then the methods side by side on the strongest one."""
    return _jpeg(subject.of_series(headers, series, subject.in_print(result)), KIND, render_pages)


@tolerant()
def build_series_single(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the strongest slice alone."""
    return _jpeg(subject.of_series(headers, series, subject.in_print(result)), SINGLE_KIND, render_first)


@tolerant()
def build_series_uncompressed(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the pages of a series as plain RGB."""
    return _plain(subject.of_series(headers, series, subject.in_print(result)))


def _jpeg(about: Subject, name: str, draw: Draw) -> Dataset:
    pages, frames = _small_enough(about, draw)
    dataset = _common(about, pages, name, JPEGBaseline8Bit)
    raw = sum(page.picture.nbytes for page in pages.renderings)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = f"{raw / sum(map(len, frames)):.2f}"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    return dataset


def _plain(about: Subject) -> Dataset:
    pages = render_pages(about)
    dataset = _common(about, pages, UNCOMPRESSED_KIND, ExplicitVRLittleEndian)
    pixels = b"".join(page.picture.tobytes() for page in pages.renderings)
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OB"
    add_lossy([pages.first.header], dataset)
    return dataset


def _common(about: Subject, pages: Pages, name: str, transfer_syntax: str) -> FileDataset:
    source, several = pages.first.header, len(pages.renderings) > 1
    kind = Kind(
        name=name,
        sop_class_uid=MultiFrameTrueColorSecondaryCaptureImageStorage if several else SecondaryCaptureImageStorage,
        transfer_syntax_uid=transfer_syntax,
        modality=_modality(source),
        place=PLACE,
        series_description=f"AI heatmap ({about.result.pipeline})",
    )
    dataset = start(about.header, about.result, kind)
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = _derivation(about.result)
    _add_references(about, dataset)
    add_anatomy(source, dataset)
    _add_pixels(dataset, pages)
    _add_spacing(dataset, pages)
    dataset.BurnedInAnnotation = burned_in(source)
    finding = pages.first.finding
    comments = (f"{captions.verdict(finding)}.", captions.NOT_FOR_DIAGNOSIS, captions.replaces(about.result))
    dataset.ImageComments = " ".join(filter(None, comments))
    return dataset


def _modality(source: Dataset) -> str:
    """Return what originally acquired the data, which is how PS3.3 C.8.6.1 defines Modality of a Secondary Capture.

    OT, the term for nothing of the kind, makes OHIF open its player, and makes a worklist's list of modalities longer.
    """
    stated = text(source, "Modality").upper()
    return stated if _MODALITY.fullmatch(stated) else "OT"


def burned_in(source: Dataset) -> str:
    """Say whether the picture may identify the patient (PS3.3 C.7.6.1, Burned In Annotation).

    The attribute asks for annotation that identifies the patient and dates the image. Ours does neither, so a
    source that is declared free of it stays so; where the source is silent, its pixels may carry a name, and
    a tool that removes names had better look.
    """
    return "NO" if text(source, "BurnedInAnnotation").upper() == "NO" else "YES"


def _derivation(result: Result) -> str:
    shown = [attribution.title for attribution in result.attributions if captions.is_shown(attribution)]
    maps = ", ".join(shown) or "no explanation"
    return f"Side by side: film as sent, and film with {maps} of {result.model.title} {result.model.version}"[:1024]


def _add_references(about: Subject, dataset: Dataset) -> None:
    """Source images, and where in this study they lie (Common Instance Reference, PS3.3 C.12.2)."""
    sources = [reference(header) for header in about.headers]
    for item in sources:
        item.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_IMAGE)]
    dataset.SourceImageSequence = sources
    series = Dataset()
    series.SeriesInstanceUID = text(about.header, "SeriesInstanceUID")
    series.ReferencedInstanceSequence = [reference(header) for header in about.headers]
    dataset.ReferencedSeriesSequence = [series]


def _add_pixels(dataset: Dataset, pages: Pages) -> None:
    dataset.SamplesPerPixel = 3
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pages.renderings[0].picture.shape[:2]
    dataset.BitsAllocated = 8
    dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    if len(pages.renderings) > 1:
        # Frames are pages, not moments: no viewer should play them (PS3.3 C.8.6.4).
        dataset.NumberOfFrames = len(pages.renderings)
        dataset.FrameIncrementPointer = _PAGE_NUMBER_VECTOR
        dataset.PageNumberVector = list(range(1, len(pages.renderings) + 1))


def _add_spacing(dataset: Dataset, pages: Pages) -> None:
    """Write the spacing of the drawn films in the attributes that the source has, so that they mean what they meant.

    Pixel Spacing is the patient's or calibrated, Imager Pixel Spacing the detector's; equal ones say that nothing was
    corrected (PS3.3 10.7.1.3). Where the source has the detector's alone it is written as both: viewers measure by
    Pixel Spacing, and a distance on the picture is then what the same viewer measures on the film. The films of all
    pages have one scale; should they ever not, no distance is better than a wrong one.
    """
    image, source = pages.first.image, pages.first.header
    sizes = {(film[2] - film[0], film[3] - film[1]) for page in pages.renderings for film in page.films}
    if len(sizes) != 1:
        return
    ((width, height),) = sizes
    rows, columns = image.grey.shape
    measures = macro(source, "PixelMeasuresSequence")
    found = {keyword: spacing(measures, keyword) for keyword in SPACINGS}
    found["PixelSpacing"] = found["PixelSpacing"] or found["ImagerPixelSpacing"]
    for keyword, distances in found.items():
        if distances is not None:
            scaled = [_decimal(distances[0] * rows / height), _decimal(distances[1] * columns / width)]
            setattr(dataset, keyword, scaled)
    if spacing(measures, "PixelSpacing"):
        for keyword in ("PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"):
            if text(source, keyword):
                setattr(dataset, keyword, text(source, keyword))


def _decimal(value: float) -> str:
    return f"{value:.8g}"


def _small_enough(about: Subject, draw: Draw) -> tuple[Pages, list[bytes]]:
    """Draw and encode with the best size and quality that stay below 1 MB together; always the same choice."""
    for largest in _PANELS:
        pages = draw(about, largest=largest)
        for quality in _QUALITIES:
            frames = [_encoded(page.picture, quality) for page in pages.renderings]
            size = sum(map(len, frames))
            if size <= MAX_JPEG_BYTES:
                return pages, frames
            if largest != _PANELS[-1] and size > _HOPELESS * MAX_JPEG_BYTES:
                break
    return pages, frames


def _encoded(picture: NDArray[np.uint8], quality: int) -> bytes:
    buffer = BytesIO()
    Picture.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling="4:2:2", optimize=True)
    return buffer.getvalue()
