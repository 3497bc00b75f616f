"""The report for viewers that show only text: Basic Text SR or Enhanced SR (PS3.3 A.35.1, A.35.2)."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from pydicom.uid import BasicTextSRStorage, EnhancedSRStorage

from dicom_nodes.objects import codes, narrative, subject
from dicom_nodes.objects import content_items as content
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import reference
from dicom_nodes.objects.key_slices import slices_to_cite
from dicom_nodes.objects.part10 import tolerant
from dicom_nodes.objects.report_document import procedure_reported, report_kind, write_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset

    from dicom_nodes.objects.subject import Subject
    from service.images import Image, Series
    from service.results import Result

KIND = "text-report"
ENHANCED_KIND = "text-report-enhanced"
PLACE = 4
_LONGEST_LINE = 80
"""Characters of a finding: OHIF sets findings in a fixed pitch and cuts a longer line at the edge of the viewport."""


@tolerant()
def build(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build a Basic Text SR about one image."""
    return _build(subject.of_image(source, image, result), KIND, BasicTextSRStorage)


@tolerant()
def build_enhanced(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the same words as an Enhanced SR, for viewers that know no Basic Text SR."""
    return _build(subject.of_image(source, image, result), ENHANCED_KIND, EnhancedSRStorage)


@tolerant()
def build_series(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build a Basic Text SR about a series; it names the slices that mattered."""
    return _build(subject.of_series(headers, series, result), KIND, BasicTextSRStorage)


@tolerant()
def build_series_enhanced(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the words about a series as an Enhanced SR."""
    return _build(subject.of_series(headers, series, result), ENHANCED_KIND, EnhancedSRStorage)


def _build(about: Subject, name: str, sop_class: str) -> Dataset:
    description = f"AI text report ({about.result.pipeline})"
    source = dcm("121324", "Source image")
    cited = [reference(about.headers[index]) for index in slices_to_cite(about)]
    return write_report(
        about.headers,
        about.result,
        report_kind(name, sop_class, place=PLACE, series_description=description),
        codes.private("ai-report", "AI analysis report"),
        [
            *(_section(section) for section in narrative.sections(about)),
            *(content.reference("IMAGE", source, item) for item in cited),
            procedure_reported(about.images[0]),
        ],
    )


def _section(section: narrative.Section) -> Dataset:
    if section.heading.value != "121070":
        comment = dcm("121106", "Comment")
        return content.container(section.heading, [content.text(comment, line) for line in section.lines])
    finding = dcm("121071", "Finding")
    return content.container(section.heading, [content.text(finding, _broken(line)) for line in section.lines])


def _broken(line: str) -> str:
    """Break a sentence into lines by CR LF, which begins a new line in Unlimited Text (PS3.5 6.1.3)."""
    held = line.replace(" %", "\u00a0%")
    return "\r\n".join(textwrap.wrap(held, _LONGEST_LINE)).replace("\u00a0", " ")
