"""The picture that every viewer shows: a true-colour Secondary Capture (PS3.3 A.8, C.8.6)."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image as Picture
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from dicom_nodes.objects import captions, codes
from dicom_nodes.objects.attributes import items, spacing, text, texts
from dicom_nodes.objects.derived import Kind, reference, start
from dicom_nodes.objects.overlay import explained, render
from dicom_nodes.objects.part10 import tolerant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import FileDataset

    from dicom_nodes.objects.overlay import Rendering
    from service.types import Image, Result

KIND = "secondary-capture"
SERIES_NUMBER = 9001
MAX_JPEG_BYTES = 1_000_000
_QUALITIES = (90, 85, 80, 70, 60)
_UNPAIRED = frozenset(
    [
        "ABDOMEN",
        "ABDOMENPELVIS",
        "AORTA",
        "BLADDER",
        "BRAIN",
        "CHEST",
        "CHESTABDOMEN",
        "CHESTABDPELVIS",
        "COCCYX",
        "COLON",
        "CSPINE",
        "CTSPINE",
        "DUODENUM",
        "ESOPHAGUS",
        "FACE",
        "GALLBLADDER",
        "HEAD",
        "HEADNECK",
        "HEART",
        "JAW",
        "LIVER",
        "LSPINE",
        "LSSPINE",
        "MAXILLA",
        "MEDIASTINUM",
        "NECK",
        "NECKCHEST",
        "NOSE",
        "PANCREAS",
        "PELVIS",
        "PHARYNX",
        "PROSTATE",
        "RECTUM",
        "SKULL",
        "SPINE",
        "SPLEEN",
        "SSPINE",
        "STERNUM",
        "STOMACH",
        "THYROID",
        "TLSPINE",
        "TONGUE",
        "TRACHEA",
        "TSPINE",
        "UTERUS",
        "WHOLEBODY",
    ]
)
"""Body parts of PS3.16 annex L that have no side."""


@tolerant()
def build(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the picture as JPEG baseline, below 1 MB, which every viewer displays.

    Args:
        source: header of the analysed instance.
        image: its grey values.
        result: what was found; its first attribution is drawn.

    Returns:
        A file-ready data set.
    """
    rendering = render(source, image, result)
    dataset = _common(source, image, result, rendering, JPEGBaseline8Bit)
    encoded = _jpeg(rendering.picture)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = f"{rendering.picture.nbytes / len(encoded):.2f}"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.PixelData = encapsulate([encoded])
    dataset["PixelData"].VR = "OB"
    return dataset


@tolerant()
def build_uncompressed(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the picture as plain RGB, for archives that take nothing else; some 6 MB."""
    rendering = render(source, image, result)
    dataset = _common(source, image, result, rendering, ExplicitVRLittleEndian)
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = rendering.picture.tobytes() + b"\0" * (rendering.picture.nbytes % 2)
    dataset["PixelData"].VR = "OB"
    if text(source, "LossyImageCompression") == "01":
        # Once lossy, always lossy (PS3.3 C.7.6.1.1.5): the film that we drew on was compressed before.
        dataset.LossyImageCompression = "01"
        ratio = texts(source, "LossyImageCompressionRatio")
        dataset.LossyImageCompressionRatio = ratio[-1] if ratio and ratio[-1] else "1"
        method = texts(source, "LossyImageCompressionMethod")
        if method and method[-1]:
            dataset.LossyImageCompressionMethod = method[-1]
    else:
        dataset.LossyImageCompression = "00"
    return dataset


def _common(source: Dataset, image: Image, result: Result, rendering: Rendering, transfer_syntax: str) -> FileDataset:
    attribution, finding = explained(result)
    title = attribution.title if attribution else "no map"
    kind = Kind(
        name=KIND,
        sop_class_uid=SecondaryCaptureImageStorage,
        transfer_syntax_uid=transfer_syntax,
        # OT keeps hanging protocols, and other readers of radiographs, from taking the picture for a film.
        modality="OT",
        series_number=SERIES_NUMBER,
        series_description=f"AI heatmap: {finding.label} ({title})",
    )
    dataset = start(source, result, kind)
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = _derivation(result)
    dataset.SourceImageSequence = [_source_image(source)]
    _add_references(source, dataset)
    _add_anatomy(source, dataset)
    _add_pixels(dataset, rendering)
    _add_spacing(source, dataset, image, rendering)
    dataset.BurnedInAnnotation = burned_in(source)
    comments = (f"{captions.verdict(finding)}.", captions.NOT_FOR_DIAGNOSIS, captions.replaces(result))
    dataset.ImageComments = " ".join(filter(None, comments))
    return dataset


def burned_in(source: Dataset) -> str:
    """Say whether the picture may identify the patient (PS3.3 C.7.6.1, Burned In Annotation).

    The attribute asks for annotation that identifies the patient and dates the image. Ours does neither, so a
    source that is declared free of it stays so; where the source is silent, its pixels may carry a name, and
    a tool that removes names had better look.
    """
    return "NO" if text(source, "BurnedInAnnotation").upper() == "NO" else "YES"


def _derivation(result: Result) -> str:
    maps = ", ".join(attribution.title for attribution in result.attributions) or "no explanation"
    return f"Side by side: film as sent, and film with {maps} of {result.model.title} {result.model.version}"[:1024]


def _source_image(source: Dataset) -> Dataset:
    item = reference(source)
    item.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_IMAGE)]
    return item


def _add_references(source: Dataset, dataset: Dataset) -> None:
    """Common Instance Reference (PS3.3 C.12.2): where in this study the source lies."""
    series = Dataset()
    series.SeriesInstanceUID = text(source, "SeriesInstanceUID")
    series.ReferencedInstanceSequence = [reference(source)]
    dataset.ReferencedSeriesSequence = [series]


def _add_anatomy(source: Dataset, dataset: Dataset) -> None:
    """Both panels lie as the source lies, so its orientation and side hold for the picture."""
    orientation = texts(source, "PatientOrientation")
    dataset.PatientOrientation = list(orientation) if len(orientation) == 2 else None  # noqa: PLR2004
    for keyword in ("BodyPartExamined", "ImageLaterality"):
        value = text(source, keyword)
        if value and len(value) <= 16:  # noqa: PLR2004 - a code string's length
            setattr(dataset, keyword, value)
    _add_laterality(source, dataset)
    for item in items(source, "AnatomicRegionSequence")[:1]:
        if text(item, "CodeValue") and text(item, "CodingSchemeDesignator") and text(item, "CodeMeaning"):
            dataset.AnatomicRegionSequence = [_plain_code(item)]


def _add_laterality(source: Dataset, dataset: Dataset) -> None:
    """Laterality is type 2C (PS3.3 C.7.3.1): forbidden on unpaired parts, else present, if need be empty."""
    if text(source, "BodyPartExamined").upper() in _UNPAIRED or "ImageLaterality" in dataset:
        return
    side = text(source, "Laterality").upper()
    dataset.Laterality = side if side in {"L", "R"} else None


def _plain_code(item: Dataset) -> Dataset:
    copy = Dataset()
    for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"):
        setattr(copy, keyword, text(item, keyword))
    return copy


def _add_pixels(dataset: Dataset, rendering: Rendering) -> None:
    dataset.SamplesPerPixel = 3
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = rendering.picture.shape[:2]
    dataset.BitsAllocated = 8
    dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0


def _add_spacing(source: Dataset, dataset: Dataset, image: Image, rendering: Rendering) -> None:
    """Write the spacing of the drawn film, in the attribute that keeps the source's meaning.

    Pixel Spacing is the patient's or calibrated, Imager Pixel Spacing the detector's (PS3.3 10.7.1.3); the
    latter becomes Nominal Scanned Pixel Spacing, which claims no calibration either.
    """
    if image.pixel_spacing_mm is None:
        return
    left, top, right, bottom = rendering.original
    rows, columns = image.grey.shape
    row_mm, column_mm = image.pixel_spacing_mm
    scaled = [_decimal(row_mm * rows / (bottom - top)), _decimal(column_mm * columns / (right - left))]
    if spacing(source, "PixelSpacing"):
        dataset.PixelSpacing = scaled
        for keyword in ("PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"):
            if text(source, keyword):
                setattr(dataset, keyword, text(source, keyword))
    else:
        dataset.NominalScannedPixelSpacing = scaled


def _decimal(value: float) -> str:
    return f"{value:.8g}"


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode with the highest quality that stays below 1 MB; the same picture gives the same bytes."""
    encoded = b""
    for quality in _QUALITIES:
        buffer = BytesIO()
        Picture.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling="4:2:2", optimize=True)
        encoded = buffer.getvalue()
        if len(encoded) <= MAX_JPEG_BYTES:
            break
    return encoded
