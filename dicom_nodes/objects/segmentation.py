"""Where a series' explanation is strong, in space: a BINARY Segmentation (PS3.3 A.51) of the 50 % region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from dicom_nodes.objects import captions, codes, contours, identity, subject
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import Kind, start
from dicom_nodes.objects.geometry import Geometry, stack_geometry
from dicom_nodes.objects.multiframe import (
    IMAGE_POSITION,
    PLANE_POSITION_GROUP,
    add_dimensions,
    add_multiframe,
    frame,
    method_identification,
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

KIND = "segmentation"
PLACE = 7
LEVEL = 0.5
_SEGMENT_NUMBER = 0x0062000B
_SEGMENT_GROUP = 0x0062000A
_DERIVATION = dcm("113076", "Segmentation")
_CATEGORY = Code(value="309825002", scheme="SCT", meaning="Spatial and Relational Concept")
"""Not an altered structure: the region marks influence, not disease."""


@dataclass(frozen=True, kw_only=True)
class _Segment:
    number: int
    finding: Finding
    attribution: Attribution
    mask: NDArray[np.bool_]
    """Shape (slices, rows, columns)."""

    @property
    def slices(self) -> range:
        """From the first to the last slice with a marked pixel; empty slices between stay, so that no gap opens."""
        filled = np.nonzero(self.mask.any(axis=(1, 2)))[0]
        return range(int(filled[0]), int(filled[-1]) + 1)


@tolerant()
def build_series(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build one segment per finding at or above its operating point.

    Raises:
        ObjectRefusedError: the stack is tilted, uneven or without geometry, or there is nothing to mark.
    """
    about = subject.of_series(headers, series, result)
    geometry = stack_geometry(about)
    segments = _segments(about)
    if not segments:
        raise ObjectRefusedError("there is nothing to mark: no finding at its operating point with a map to show")
    kind = Kind(
        name=KIND,
        sop_class_uid=SegmentationStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="SEG",
        place=PLACE,
        series_description=f"AI regions ({result.pipeline})",
    )
    dataset = start(about.header, result, kind)
    add_multiframe(dataset, about, geometry)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SegmentationType = "BINARY"
    dataset.ContentLabel = "AI_REGIONS"
    dataset.ContentDescription = "What influenced the model most, not the extent of disease"
    dataset.ContentCreatorName = "Pellucid"
    dataset.SegmentSequence = [_segment(about, each) for each in segments]
    add_dimensions(dataset, result.job_id, [(_SEGMENT_NUMBER, _SEGMENT_GROUP), (IMAGE_POSITION, PLANE_POSITION_GROUP)])
    dataset.SharedFunctionalGroupsSequence = [shared_geometry(geometry)]
    dataset.PerFrameFunctionalGroupsSequence = [item for each in segments for item in _frames(about, geometry, each)]
    _add_pixels(dataset, segments)
    return dataset


def _segments(about: Subject) -> list[_Segment]:
    segments: list[_Segment] = []
    for finding in subject.explained_findings(about.result):
        shown = [each for each in subject.explanations_of(about.result, finding) if captions.is_shown(each)]
        if not finding.positive or not shown:
            continue
        mask = np.stack([_marked(about, shown[0], index) for index in range(len(about.headers))])
        if mask.any():
            segments.append(_Segment(number=len(segments) + 1, finding=finding, attribution=shown[0], mask=mask))
    return segments


def _marked(about: Subject, attribution: Attribution, index: int) -> NDArray[np.bool_]:
    magnitude = about.magnitude(attribution, index)
    if magnitude.max(initial=0.0) < LEVEL:
        return np.zeros(magnitude.shape, dtype=bool)
    return np.asarray(contours.outlined(magnitude) >= LEVEL)


def _segment(about: Subject, segment: _Segment) -> Dataset:
    finding, attribution = segment.finding, segment.attribution
    item = Dataset()
    item.SegmentNumber = segment.number
    item.SegmentLabel = f"AI influence: {finding.label}"[:64]
    item.SegmentDescription = (
        f"{attribution.title} at or above 50 % of its maximum. {captions.verdict(finding)}; "
        f"{captions.trust(attribution)}. {captions.NOT_FOR_DIAGNOSIS}"
    )[:1024]
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = f"{about.result.model.title} / {attribution.title}"[:64]
    item.SegmentationAlgorithmIdentificationSequence = [method_identification(about)]
    item.SegmentedPropertyCategoryCodeSequence = [codes.item(_CATEGORY)]
    item.SegmentedPropertyTypeCodeSequence = [codes.item(codes.VISUAL_EXPLANATION)]
    item.TrackingID = f"{finding.label}: model influence"[:64]
    item.TrackingUID = identity.tracking_uid(
        job_id=about.result.job_id,
        source_sop_uid=about.images[0].header.sop_instance_uid,
        finding=f"{finding.label}/segment",
        ordinal=0,
    )
    item.RecommendedDisplayCIELabValue = [45000, 45000, 52000]
    return item


def _frames(about: Subject, geometry: Geometry, segment: _Segment) -> list[Dataset]:
    frames = []
    for place, index in enumerate(segment.slices, start=1):
        item = frame(about, geometry, index, [segment.number, place], _DERIVATION)
        identification = Dataset()
        identification.ReferencedSegmentNumber = segment.number
        item.SegmentIdentificationSequence = [identification]
        frames.append(item)
    return frames


def _add_pixels(dataset: Dataset, segments: list[_Segment]) -> None:
    """Pack the bits of all frames without gaps, the first pixel in the lowest bit (PS3.5 8.1.1)."""
    pixels = np.concatenate([each.mask[each.slices.start : each.slices.stop] for each in segments])
    packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 1
    dataset.BitsStored = 1
    dataset.HighBit = 0
    dataset.PixelRepresentation = 0
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset["PixelData"].VR = "OB"
