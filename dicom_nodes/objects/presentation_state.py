"""The lines and the caption over the film itself: a Grayscale Softcopy Presentation State (PS3.3 A.33.1)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, GrayscaleSoftcopyPresentationStateStorage

from dicom_nodes.objects import captions, contours, subject
from dicom_nodes.objects.anatomy import add_body_part
from dicom_nodes.objects.attributes import items, number, numbers, spacing, text
from dicom_nodes.objects.derived import Kind, reference, start
from dicom_nodes.objects.grey import Window, is_inverted, shown_by
from dicom_nodes.objects.key_slices import key_slices, strongest_slice
from dicom_nodes.objects.panels import LEVELS
from dicom_nodes.objects.part10 import tolerant
from dicom_nodes.objects.scene import scene
from service.errors import ObjectRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_nodes.objects.scene import Scene
    from dicom_nodes.objects.subject import Subject
    from service.types import Image, Result, Series

KIND = "presentation-state"
SERIES_NUMBER = 9005
_NEUTRAL = 32896
"""Of a* and b* in the 16-bit coding of CIELab (PS3.3 C.10.7.1.1)."""
_LINE_HEIGHT = 0.025
"""Of the displayed area; the caption stands along its lower edge, where a film has least to tell."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    name: str
    colour: tuple[int, int, int]
    description: str


_LAYERS = {
    0.5: _Layer(name="AI_50", colour=(65535, _NEUTRAL, _NEUTRAL), description="Influence at 50 % of the maximum"),
    0.8: _Layer(name="AI_80", colour=(61600, 31000, 48000), description="Influence at 80 % of the maximum"),
}
_CAPTION = _Layer(name="AI_TEXT", colour=(54000, 35500, 52000), description="Caption")


@tolerant()
def build(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the state of one film: contours of the default explanation and a caption over the original.

    Below the operating point, and for a map that must not be shown, there is the caption alone: an outline on the
    film reads as a lesion.

    Raises:
        ObjectRefusedError: the film is in colour, for which this class has no place.
    """
    return _build(subject.of_image(source, image, result))


@tolerant()
def build_series(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the state of the slices that mattered.

    Raises:
        ObjectRefusedError: the slices are in colour.
    """
    return _build(subject.of_series(headers, series, result))


def _build(about: Subject) -> Dataset:
    if any(header.get("SamplesPerPixel", 1) != 1 for header in about.headers):
        raise ObjectRefusedError("a presentation state of this class is for grey images; the source is in colour")
    scenes = _scenes(about)
    kind = Kind(
        name=KIND,
        sop_class_uid=GrayscaleSoftcopyPresentationStateStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="PR",
        series_number=SERIES_NUMBER,
        series_description=f"AI outlines ({about.result.pipeline})",
    )
    dataset = start(about.header, about.result, kind)
    dataset.ContentLabel = "AI_OUTLINES"
    dataset.ContentDescription = captions.verdict(scenes[0].finding)[:64]
    dataset.ContentCreatorName = "Pellucid"
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = dataset.ContentDate, dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime
    add_body_part(scenes[0].header, dataset)
    dataset.ReferencedSeriesSequence = [_referenced(about, scenes)]
    dataset.DisplayedAreaSelectionSequence = [_displayed_area(scenes)]
    dataset.GraphicLayerSequence = _layers()
    dataset.GraphicAnnotationSequence = [_annotation(shown, layer) for shown in scenes for layer in _used(shown)]
    _add_modality_lut(scenes[0].header, dataset)
    dataset.SoftcopyVOILUTSequence = [_voi(shown) for shown in scenes]
    # IDENTITY on MONOCHROME1 would show the film inverted (PS3.3 C.11.6.1.2).
    dataset.PresentationLUTShape = "INVERSE" if is_inverted(scenes[0].header) else "IDENTITY"
    return dataset


def _scenes(about: Subject) -> list[Scene]:
    attribution, finding = subject.default_explanation(about.result)
    indices = key_slices(about, finding) if about.series else ()
    chosen = indices or (strongest_slice(about, finding),)
    return [scene(about, finding, attribution, index) for index in chosen]


def _referenced(about: Subject, scenes: list[Scene]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = text(about.header, "SeriesInstanceUID")
    item.ReferencedImageSequence = [reference(shown.header) for shown in scenes]
    return item


def _displayed_area(scenes: list[Scene]) -> Dataset:
    """Show the whole image (PS3.3 C.10.4): corners are pixels, counted from 1, in column and row."""
    header, image = scenes[0].header, scenes[0].image
    rows, columns = image.grey.shape
    item = Dataset()
    item.ReferencedImageSequence = [reference(shown.header) for shown in scenes]
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [columns, rows]
    item.PresentationSizeMode = "SCALE TO FIT"
    distances = spacing(header, "PixelSpacing", "ImagerPixelSpacing")
    if distances:
        item.PresentationPixelSpacing = [f"{value:.8g}" for value in distances]
    else:
        ratio = numbers(header, "PixelAspectRatio")
        sound = len(ratio) == 2 and min(ratio) >= 1  # noqa: PLR2004 - height and width
        item.PresentationPixelAspectRatio = [round(value) for value in ratio] if sound else [1, 1]
    return item


def _layers() -> list[Dataset]:
    layers = []
    for order, layer in enumerate([*_LAYERS.values(), _CAPTION], start=1):
        item = Dataset()
        item.GraphicLayer = layer.name
        item.GraphicLayerOrder = order
        item.GraphicLayerRecommendedDisplayCIELabValue = list(layer.colour)
        item.GraphicLayerDescription = layer.description
        layers.append(item)
    return layers


def _used(shown: Scene) -> list[_Layer]:
    outlined = shown.finding.positive and bool(shown.magnitude.any())
    lined = [_LAYERS[level] for level in LEVELS if outlined and contours.regions(shown.magnitude, level)]
    return [*lined, _CAPTION]


def _annotation(shown: Scene, layer: _Layer) -> Dataset:
    item = Dataset()
    item.ReferencedImageSequence = [reference(shown.header)]
    item.GraphicLayer = layer.name
    if layer is _CAPTION:
        item.TextObjectSequence = _texts(shown)
    else:
        level = next(level for level, each in _LAYERS.items() if each is layer)
        item.GraphicObjectSequence = [_line(region) for region in contours.regions(shown.magnitude, level)]
    return item


def _line(region: contours.Region) -> Dataset:
    """Return a closed polyline in pixels from the top-left corner of the first pixel (PS3.3 C.10.5.1.2)."""
    item = Dataset()
    item.GraphicAnnotationUnits = "PIXEL"
    item.GraphicDimensions = 2
    item.NumberOfGraphicPoints = len(region.points)
    item.GraphicData = [float(f"{coordinate:.2f}") for coordinate in region.points.ravel()]
    item.GraphicType = "POLYLINE"
    item.GraphicFilled = "N"
    return item


def _texts(shown: Scene) -> list[Dataset]:
    lines = [line for line in _caption(shown) if line]
    texts = []
    for place, line in enumerate(lines):
        top = 0.995 - _LINE_HEIGHT * (len(lines) - place)
        item = Dataset()
        item.BoundingBoxAnnotationUnits = "DISPLAY"
        item.UnformattedTextValue = line[:1024]
        item.BoundingBoxTopLeftHandCorner = [0.01, round(top, 4)]
        item.BoundingBoxBottomRightHandCorner = [0.99, round(top + _LINE_HEIGHT, 4)]
        item.BoundingBoxTextHorizontalJustification = "LEFT"
        texts.append(item)
    return texts


def _caption(shown: Scene) -> list[str]:
    finding, attribution = shown.finding, shown.attribution
    drawn = finding.positive and not shown.withheld and bool(shown.magnitude.any())
    lines = [f"{captions.verdict(finding)}: {captions.percent(finding.probability)}"]
    if attribution is not None and drawn:
        lines.append(f"{captions.method(attribution)}, 50 % and 80 %; {captions.trust(attribution)}")
    elif attribution is not None and shown.withheld:
        lines.append(f"{captions.method(attribution)}: not shown. {captions.doubts(attribution)}")
    lines.append(f"{captions.NOT_FOR_DIAGNOSIS} {captions.HOW_TO_READ_LINES if drawn else ''}".strip())
    return lines


def _add_modality_lut(source: Dataset, dataset: Dataset) -> None:
    """Repeat the source's modality transformation, which a presentation state replaces (PS3.3 C.11.1)."""
    tables = items(source, "ModalityLUTSequence")
    if tables:
        dataset.ModalityLUTSequence = [copy.deepcopy(tables[0])]
        return
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    if slope is not None or intercept is not None:
        dataset.RescaleIntercept = f"{intercept or 0.0:.10g}"
        dataset.RescaleSlope = f"{slope or 1.0:.10g}"
        dataset.RescaleType = text(source, "RescaleType") or ("HU" if text(source, "Modality") == "CT" else "US")


def _voi(shown: Scene) -> Dataset:
    """Return one window, or the one table, that shows the film as the pictures show it."""
    item = Dataset()
    item.ReferencedImageSequence = [reference(shown.header)]
    used = shown_by(shown.header, shown.image)
    if isinstance(used, Window):
        # No explanation: some toolkits split its letters into values.
        item.WindowCenter = f"{used.center:.6g}"
        item.WindowWidth = f"{used.width:.6g}"
        if used.function != "LINEAR":
            item.VOILUTFunction = used.function
    else:
        item.VOILUTSequence = [copy.deepcopy(used)]
    return item
