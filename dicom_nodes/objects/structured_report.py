"""The report that machines and viewers read: a Structured Report by TID 1500, in the class that a viewer knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from dicom_nodes.objects import codes, narrative, subject
from dicom_nodes.objects import content_items as content
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.image_library import image_library
from dicom_nodes.objects.measurement_groups import evaluations, measurement_groups
from dicom_nodes.objects.part10 import tolerant
from dicom_nodes.objects.report_document import procedure_reported, report_kind, write_report
from service.concepts import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset

    from dicom_nodes.objects.subject import Subject
    from service.images import Image, Series
    from service.results import Result

KIND = "structured-report"
COMPREHENSIVE_KIND = "structured-report-comprehensive"
ENHANCED_KIND = "structured-report-enhanced"
PLACE = 2
_QUALITATIVE = Code(value="C0034375", scheme="UMLS", meaning="Qualitative Evaluations")


@tolerant()
def build(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the report about one image as Comprehensive 3D SR, which IHE AI Results asks for.

    Args:
        source: header of the analysed instance.
        image: its grey values; only the pixel spacing and the grid are used.
        result: what was found.

    Returns:
        A file-ready data set.
    """
    return _build(subject.of_image(source, image, result), KIND, Comprehensive3DSRStorage)


@tolerant()
def build_comprehensive(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the same report as Comprehensive SR, for archives that refuse the three-dimensional class."""
    return _build(subject.of_image(source, image, result), COMPREHENSIVE_KIND, ComprehensiveSRStorage)


@tolerant()
def build_enhanced(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the same report as Enhanced SR, for archives that know neither of the comprehensive ones."""
    return _build(subject.of_image(source, image, result), ENHANCED_KIND, EnhancedSRStorage)


@tolerant()
def build_series(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the report about a series; its regions lie on the slices that mattered."""
    return _build(subject.of_series(headers, series, result), KIND, Comprehensive3DSRStorage)


@tolerant()
def build_series_comprehensive(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the report about a series as Comprehensive SR."""
    return _build(subject.of_series(headers, series, result), COMPREHENSIVE_KIND, ComprehensiveSRStorage)


@tolerant()
def build_series_enhanced(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the report about a series as Enhanced SR."""
    return _build(subject.of_series(headers, series, result), ENHANCED_KIND, EnhancedSRStorage)


def _build(about: Subject, name: str, sop_class: str) -> Dataset:
    """Write Imaging Measurement Report (TID 1500): groups with coordinates, then what a reader must know in words."""
    description = f"AI report ({about.result.pipeline})"
    return write_report(
        about.headers,
        about.result,
        report_kind(name, sop_class, place=PLACE, series_description=description),
        dcm("126000", "Imaging Measurement Report"),
        [
            procedure_reported(about.images[0]),
            image_library(about),
            content.container(dcm("126010", "Imaging Measurements"), measurement_groups(about)),
            content.container(_QUALITATIVE, [*evaluations(about), *_words(about)]),
        ],
        template="1500",
    )


def _words(about: Subject) -> list[Dataset]:
    """Every finding, every explanation with its doubts, how to read a region, limits, model."""
    comment = dcm("121106", "Comment")
    regions = "Regions outline where the map is at or above 50 % of its maximum."
    drawn = any(finding.positive for finding in subject.explained_findings(about.result))
    notes = [
        *narrative.explanations(about),
        *([regions] if drawn else []),
        *narrative.how_to_read(about.result),
        *narrative.limits(about.result),
        *narrative.model(about.result.model),
    ]
    return [
        *(content.text(codes.private("verdict", "Verdict"), line) for line in narrative.findings(about.result)),
        *(content.text(comment, note) for note in notes),
    ]
