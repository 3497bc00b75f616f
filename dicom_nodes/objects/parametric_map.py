"""The explanation itself as numbers in space: a Parametric Map of float32 (PS3.3 A.75)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ParametricMapStorage

from dicom_nodes.objects import captions, codes, subject
from dicom_nodes.objects.derived import Kind, start
from dicom_nodes.objects.geometry import Geometry, stack_geometry
from dicom_nodes.objects.multiframe import (
    IMAGE_POSITION,
    PLANE_POSITION_GROUP,
    add_dimensions,
    add_multiframe,
    frame,
    shared_geometry,
)
from dicom_nodes.objects.part10 import tolerant
from service.concepts import Code
from service.errors import ObjectRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dicom_nodes.objects.subject import Subject
    from service.images import Series
    from service.results import Attribution, Finding, Result

KIND = "parametric-map"
PLACE = 8
_DERIVATION = codes.private("attribution", "Attribution of a model's result to the image")
_QUANTITY = Code(value="246205007", scheme="SCT", meaning="Quantity")
_METHOD = Code(value="370129005", scheme="SCT", meaning="Measurement Method")
_IMAGE_TYPE = ("DERIVED", "PRIMARY", "VOLUME", "QUANTITY")


@tolerant()
def build_series(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the map of the default explanation, on the slices from the first to the last one with influence.

    Raises:
        ObjectRefusedError: the stack is tilted, uneven or without geometry; the finding is below its operating
            point, where colour would read as disease; or the map must not be shown.
    """
    about = subject.of_series(headers, series, result)
    attribution, finding = subject.default_explanation(result)
    if attribution is None or not captions.is_shown(attribution):
        raise ObjectRefusedError("there is no map that may be shown")
    if not finding.positive:
        raise ObjectRefusedError("the finding is below its operating point: a coloured map would read as disease")
    geometry = stack_geometry(about)
    values = np.nan_to_num(about.maps(attribution), posinf=0.0, neginf=0.0)
    explained = np.nonzero(values.any(axis=(1, 2)))[0]
    if not explained.size:
        raise ObjectRefusedError("the map is zero everywhere")
    slices = range(int(explained[0]), int(explained[-1]) + 1)
    dataset = _start(about, geometry, attribution, finding)
    dataset.SharedFunctionalGroupsSequence = [_shared(about, geometry, attribution, values)]
    dataset.PerFrameFunctionalGroupsSequence = [
        frame(about, geometry, index, [place], _DERIVATION) for place, index in enumerate(slices, start=1)
    ]
    _add_pixels(dataset, values[slices.start : slices.stop])
    return dataset


def _start(about: Subject, geometry: Geometry, attribution: Attribution, finding: Finding) -> Dataset:
    kind = Kind(
        name=KIND,
        sop_class_uid=ParametricMapStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        # The series' own modality would make a hanging protocol hang it as a scan.
        modality="RWV",
        place=PLACE,
        series_description=f"AI map ({about.result.pipeline})",
    )
    dataset = start(about.header, about.result, kind)
    add_multiframe(dataset, about, geometry)
    dataset.CodingSchemeIdentificationSequence = [codes.private_scheme()]
    dataset.ImageType = list(_IMAGE_TYPE)
    dataset.ContentLabel = "AI_MAP"
    dataset.ContentDescription = f"{captions.method(attribution)}; {captions.trust(attribution)}"[:64]
    dataset.ContentCreatorName = "Pellucid"
    dataset.ContentQualification = "RESEARCH"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.BurnedInAnnotation = "NO"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.AcquisitionContextSequence = []
    dataset.ImageComments = f"{captions.verdict(finding)}. {captions.NOT_FOR_DIAGNOSIS} {captions.HOW_TO_READ}"
    add_dimensions(dataset, about.result.job_id, [(IMAGE_POSITION, PLANE_POSITION_GROUP)])
    return dataset


def _shared(about: Subject, geometry: Geometry, attribution: Attribution, values: NDArray[np.float32]) -> Dataset:
    item = shared_geometry(geometry)
    item.FrameAnatomySequence = [_anatomy(about)]
    kind = Dataset()
    kind.FrameType = list(_IMAGE_TYPE)
    item.ParametricMapFrameTypeSequence = [kind]
    rescale = Dataset()
    rescale.RescaleIntercept = "0"
    rescale.RescaleSlope = "1"
    rescale.RescaleType = "US"
    item.PixelValueTransformationSequence = [rescale]
    item.RealWorldValueMappingSequence = [_mapping(attribution, values)]
    item.FrameVOILUTSequence = [_window(values)]
    return item


def _anatomy(about: Subject) -> Dataset:
    """Return Frame Anatomy; a body part that nobody names is the whole body, which claims least."""
    site = codes.finding_site(about.images[0].header.body_part) or codes.WHOLE_BODY
    item = Dataset()
    item.AnatomicRegionSequence = [codes.item(site)]
    item.FrameLaterality = "U"
    return item


def _mapping(attribution: Attribution, values: NDArray[np.float32]) -> Dataset:
    """Return Real World Value Mapping (PS3.3 C.7.6.16.2.11): the numbers as they are, without a unit."""
    item = Dataset()
    item.LUTExplanation = f"{attribution.title}: positive raised the probability"[:64]
    item.LUTLabel = "ATTRIBUTION"
    item.MeasurementUnitsCodeSequence = [codes.item(codes.NO_UNITS)]
    item.DoubleFloatRealWorldValueFirstValueMapped = float(values.min())
    item.DoubleFloatRealWorldValueLastValueMapped = float(values.max())
    item.RealWorldValueIntercept = 0.0
    item.RealWorldValueSlope = 1.0
    method = codes.method_code(attribution.method, attribution.title)
    quantity = method if method.scheme == "DCM" else codes.VISUAL_EXPLANATION
    item.QuantityDefinitionSequence = [_definition(_QUANTITY, quantity), _definition(_METHOD, method)]
    return item


def _definition(name: Code, value: Code) -> Dataset:
    item = Dataset()
    item.ValueType = "CODE"
    item.ConceptNameCodeSequence = [codes.item(name)]
    item.ConceptCodeSequence = [codes.item(value)]
    return item


def _window(values: NDArray[np.float32]) -> Dataset:
    """Return the window from zero to the maximum: influence against the finding stays black."""
    high = max(float(values.max()), 1e-6)
    item = Dataset()
    item.WindowCenter = f"{high / 2:.8g}"
    item.WindowWidth = f"{high:.8g}"
    item.VOILUTFunction = "LINEAR_EXACT"
    return item


def _add_pixels(dataset: Dataset, values: NDArray[np.float32]) -> None:
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = np.ascontiguousarray(values, dtype="<f4").tobytes()
