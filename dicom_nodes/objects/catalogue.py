"""Every kind of object that Pellucid writes, for statements of conformance and for the tests that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEGBaseline8Bit,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

SOURCE = "the source's"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One output and what comes of it."""

    output: str
    sop_classes: tuple[str, ...]
    """The second one when there are several pages."""
    modality: str
    """Defined Term of Modality, or that it is the source's."""
    place: int
    """Its Series Number, less the pipeline's."""
    transfer_syntax: str = ExplicitVRLittleEndian
    images: bool = True
    """Whether single images can have it; every output is for series."""


_PICTURES = (SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage)
CATALOGUE = (
    Entry(
        output="secondary-capture",
        sop_classes=_PICTURES,
        modality=SOURCE,
        place=1,
        transfer_syntax=JPEGBaseline8Bit,
    ),
    Entry(
        output="secondary-capture-single",
        sop_classes=_PICTURES[:1],
        modality=SOURCE,
        place=1,
        transfer_syntax=JPEGBaseline8Bit,
    ),
    Entry(output="secondary-capture-uncompressed", sop_classes=_PICTURES, modality=SOURCE, place=1),
    Entry(output="structured-report", sop_classes=(Comprehensive3DSRStorage,), modality="SR", place=2),
    Entry(
        output="structured-report-comprehensive",
        sop_classes=(ComprehensiveSRStorage,),
        modality="SR",
        place=2,
    ),
    Entry(output="structured-report-enhanced", sop_classes=(EnhancedSRStorage,), modality="SR", place=2),
    Entry(output="text-report", sop_classes=(BasicTextSRStorage,), modality="SR", place=4),
    Entry(output="text-report-enhanced", sop_classes=(EnhancedSRStorage,), modality="SR", place=4),
    Entry(
        output="presentation-state",
        sop_classes=(GrayscaleSoftcopyPresentationStateStorage,),
        modality="PR",
        place=5,
    ),
    Entry(output="pdf-report", sop_classes=(EncapsulatedPDFStorage,), modality="DOC", place=6),
    Entry(output="segmentation", sop_classes=(SegmentationStorage,), modality="SEG", place=7, images=False),
    Entry(output="parametric-map", sop_classes=(ParametricMapStorage,), modality="RWV", place=8, images=False),
    Entry(
        output="key-objects",
        sop_classes=(KeyObjectSelectionDocumentStorage,),
        modality="KO",
        place=9,
        images=False,
    ),
)
