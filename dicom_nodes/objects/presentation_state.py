"""The lines and the caption over the film itself: a Grayscale Softcopy Presentation State (PS3.3 A.33.1)."""

from __future__ import annotations

import copy
import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, GrayscaleSoftcopyPresentationStateStorage

from dicom_nodes.objects import captions, contours, subject
from dicom_nodes.objects.anatomy import add_body_part
from dicom_nodes.objects.attributes import SPACINGS, aspect_ratio, items, macro, number, numbers, spacing, text
from dicom_nodes.objects.derived import Kind, reference, start
from dicom_nodes.objects.grey import MONOCHROME, Window, is_inverted, modality_table, shown_by
from dicom_nodes.objects.key_slices import key_slices, strongest_slice
from dicom_nodes.objects.panels import LEVELS
from dicom_nodes.objects.part10 import tolerant
from dicom_nodes.objects.scene import scene
from service.errors import ObjectRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_nodes.objects.scene import Scene
    from dicom_nodes.objects.subject import Subject
    from service.images import Image, Series
    from service.results import Result

KIND = "presentation-state"
PLACE = 5
_NEUTRAL = 32896
"""Of a* and b* in the 16-bit coding of CIELab (PS3.3 C.10.7.1.1)."""
_WHITE = 65535
_LINE = 0.024
"""Height of a line of the caption, as a share of the film's longer side."""
_CHARACTER = 0.55
"""Width of a character over the height of its line, about."""
_MOST_DOUBTS = 1
"""Each line of the caption makes the film smaller; the report has all."""
_FEWEST = 24
"""Characters that a line must hold."""


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
    if any(text(header, "PhotometricInterpretation").upper() not in MONOCHROME for header in about.headers):
        raise ObjectRefusedError("a presentation state of this class is for grey images; the source is in colour")
    scenes = _scenes(about)
    kind = Kind(
        name=KIND,
        sop_class_uid=GrayscaleSoftcopyPresentationStateStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="PR",
        place=PLACE,
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
    captions_below = _Caption.under(scenes)
    dataset.DisplayedAreaSelectionSequence = [_displayed_area(scenes, captions_below)]
    dataset.GraphicLayerSequence = _layers()
    dataset.GraphicAnnotationSequence = [
        _annotation(shown, layer, captions_below) for shown in scenes for layer in _used(shown)
    ]
    _add_modality_lut(scenes[0].header, dataset)
    dataset.SoftcopyVOILUTSequence = [_voi(shown) for shown in scenes]
    # IDENTITY on MONOCHROME1 would show the film inverted (PS3.3 C.11.6.1.2).
    dataset.PresentationLUTShape = "INVERSE" if is_inverted(scenes[0].header) else "IDENTITY"
    return dataset


def _scenes(about: Subject) -> list[Scene]:
    attribution, finding = subject.default_explanation(about.result)
    indices = key_slices(about, finding) if about.series else ()
    strongest = strongest_slice(about, finding)
    # One state has one modality transformation, and each window is in its slice's units (PS3.3 C.11.1).
    units = _transformation(about.headers[strongest])
    chosen = [index for index in indices if _transformation(about.headers[index]) == units] or [strongest]
    return [scene(about, finding, attribution, index) for index in chosen]


def _referenced(about: Subject, scenes: list[Scene]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = text(about.header, "SeriesInstanceUID")
    item.ReferencedImageSequence = [reference(shown.header) for shown in scenes]
    return item


@dataclass(frozen=True, kw_only=True)
class _Caption:
    """A strip below the film for the words, so that none of them covers anatomy."""

    rows: int
    """Of the film."""
    strip: int
    """Rows of the displayed area below it."""
    line: float
    """Height of a line as a share of the displayed area."""
    characters: int
    """That fit a line."""

    @classmethod
    def under(cls, scenes: list[Scene]) -> _Caption:
        """Make room for the longest caption of these scenes, which share a grid."""
        rows, columns = scenes[0].image.grey.shape
        aspect = aspect_ratio(scenes[0].header)
        # On a narrow image lines are lower, so that words still fit them.
        line = min(_LINE * max(rows * aspect, columns), columns / (_CHARACTER * _FEWEST))
        characters = int(0.98 * columns / (_CHARACTER * line))
        lines = max(len(_lines(shown, characters)) for shown in scenes)
        strip = math.ceil((lines + 0.5) * line / aspect)
        return cls(rows=rows, strip=strip, line=line / aspect / (rows + strip), characters=characters)


def _displayed_area(scenes: list[Scene], caption: _Caption) -> Dataset:
    """Show the whole image and the strip below it (PS3.3 C.10.4).

    Corners are pixels, counted from 1, in column and row; they may lie outside the image.
    """
    header, image = scenes[0].header, scenes[0].image
    rows, columns = image.grey.shape
    item = Dataset()
    item.ReferencedImageSequence = [reference(shown.header) for shown in scenes]
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [columns, rows + caption.strip]
    item.PresentationSizeMode = "SCALE TO FIT"
    distances = spacing(macro(header, "PixelMeasuresSequence"), *SPACINGS)
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
        item.GraphicLayerRecommendedDisplayGrayscaleValue = _WHITE
        item.GraphicLayerRecommendedDisplayCIELabValue = list(layer.colour)
        item.GraphicLayerDescription = layer.description
        layers.append(item)
    return layers


def _used(shown: Scene) -> list[_Layer]:
    outlined = shown.finding.positive and bool(shown.magnitude.any())
    lined = [_LAYERS[level] for level in LEVELS if outlined and contours.regions(shown.magnitude, level)]
    return [*lined, _CAPTION]


def _annotation(shown: Scene, layer: _Layer, caption: _Caption) -> Dataset:
    item = Dataset()
    item.ReferencedImageSequence = [reference(shown.header)]
    item.GraphicLayer = layer.name
    if layer is _CAPTION:
        item.TextObjectSequence = _texts(shown, caption)
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


def _texts(shown: Scene, caption: _Caption) -> list[Dataset]:
    texts = []
    top = (caption.rows + 0.25 * caption.line * (caption.rows + caption.strip)) / (caption.rows + caption.strip)
    for place, line in enumerate(_lines(shown, caption.characters)):
        upper = top + place * caption.line
        item = Dataset()
        item.BoundingBoxAnnotationUnits = "DISPLAY"
        item.UnformattedTextValue = line[:1024]
        item.BoundingBoxTopLeftHandCorner = [0.01, round(upper, 5)]
        item.BoundingBoxBottomRightHandCorner = [0.99, round(min(1.0, upper + caption.line), 5)]
        item.BoundingBoxTextHorizontalJustification = "LEFT"
        texts.append(item)
    return texts


def _lines(shown: Scene, characters: int) -> list[str]:
    return [part for line in _caption(shown) for part in textwrap.wrap(line, characters)]


def _caption(shown: Scene) -> list[str]:
    finding, attribution = shown.finding, shown.attribution
    drawn = finding.positive and not shown.withheld and bool(shown.magnitude.any())
    lines = [f"{captions.verdict(finding)}: {captions.percent(finding.probability)}"]
    if attribution is not None and drawn:
        default = subject.stood_in_for(shown.result, finding)
        instead = f" ({default.title} is not shown)" if default else ""
        lines.append(f"{captions.method(attribution)}{instead}, 50 % and 80 %; {captions.trust(attribution)}")
    elif attribution is not None and shown.withheld:
        lines.append(f"{captions.method(attribution)}: not shown. {captions.doubts(attribution, _MOST_DOUBTS)}")
    lines.append(f"{captions.NOT_FOR_DIAGNOSIS} {captions.HOW_TO_READ_LINES if drawn else ''}".strip())
    return lines


def _add_modality_lut(source: Dataset, dataset: Dataset) -> None:
    """Repeat the source's modality transformation, which a presentation state replaces (PS3.3 C.11.1)."""
    table = modality_table(source)
    if table is not None:
        table.ModalityLUTType = _unit(items(source, "ModalityLUTSequence")[0], "ModalityLUTType") or "US"
        dataset.ModalityLUTSequence = [table]
        return
    rescale = macro(source, "PixelValueTransformationSequence")
    slope, intercept = number(rescale, "RescaleSlope"), number(rescale, "RescaleIntercept")
    if slope is not None or intercept is not None:
        dataset.RescaleIntercept = f"{intercept or 0.0:.10g}"
        dataset.RescaleSlope = f"{slope or 1.0:.10g}"
        dataset.RescaleType = _unit(rescale, "RescaleType") or ("HU" if text(source, "Modality") == "CT" else "US")


def _transformation(source: Dataset) -> tuple[object, ...]:
    """Return what tells whether two slices have the same modality transformation."""
    rescale = macro(source, "PixelValueTransformationSequence")
    table = modality_table(source)
    return (
        number(rescale, "RescaleSlope"),
        number(rescale, "RescaleIntercept"),
        None if table is None else table.to_json(),
    )


def _unit(source: Dataset, keyword: str) -> str:
    """Return a defined term for what values mean (PS3.3 C.11.1.1.2); empty where it is none."""
    value = text(source, keyword)
    return value if len(value) <= 16 and value.isascii() and value.isprintable() else ""  # noqa: PLR2004


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
