"""The note that, and why, a study was not analysed: a Basic Text SR that every viewer of reports shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import BasicTextSRStorage

from dicom_nodes.objects import codes
from dicom_nodes.objects import content_items as content
from dicom_nodes.objects.attributes import integer
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import reference
from dicom_nodes.objects.narrative import RESEARCH
from dicom_nodes.objects.part10 import tolerant
from dicom_nodes.objects.report_document import report_kind, write_report

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from service.results import Refusal

KIND = "refusal-report"
PLACE = 3


@tolerant()
def build(source: Dataset, refusal: Refusal) -> Dataset:
    """Build the note about one instance. It needs nothing of the source but its UIDs."""
    value_type = "IMAGE" if integer(source, "Rows") else "COMPOSITE"
    finding = dcm("121071", "Finding")
    lines = [f"Not analysed: {refusal.reason}", *refusal.details]
    description = f"AI report: not analysed ({refusal.pipeline})"
    return write_report(
        (source,),
        refusal,
        report_kind(KIND, BasicTextSRStorage, place=PLACE, series_description=description),
        codes.private("refusal", "AI analysis not performed"),
        [
            *(content.text(finding, line) for line in lines),
            content.text(dcm("121106", "Comment"), f"This says nothing about the patient. {RESEARCH}"),
            content.reference(value_type, dcm("121324", "Source image"), reference(source)),
        ],
    )
