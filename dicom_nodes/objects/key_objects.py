"""Points at the slices that mattered: a Key Object Selection Document (PS3.3 A.35.4, PS3.16 TID 2010)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from dicom_nodes.objects import captions, codes, subject
from dicom_nodes.objects import content_items as content
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import Kind, reference, start
from dicom_nodes.objects.key_slices import key_slices
from dicom_nodes.objects.part10 import tolerant
from dicom_nodes.objects.report_document import evidence, language, observer
from service.errors import ObjectRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset

    from dicom_nodes.objects.subject import Subject
    from service.images import Series
    from service.results import Finding, Result

KIND = "key-objects"
PLACE = 9


@tolerant()
def build_series(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the selection: the slices that mattered for any finding at or above its operating point.

    Raises:
        ObjectRefusedError: no slice mattered; pointing at one of a series that is called negative would mislead.
    """
    about = subject.of_series(headers, series, result)
    chosen = {finding.label: key_slices(about, finding) for finding in result.findings}
    indices = sorted({index for slices in chosen.values() for index in slices})
    if not indices:
        raise ObjectRefusedError("no slice is a key slice: no finding reached its operating point")
    kind = Kind(
        name=KIND,
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="KO",
        place=PLACE,
        series_description=f"AI key slices ({result.pipeline})",
    )
    dataset = start(about.header, result, kind)
    selected = [about.headers[index] for index in indices]
    dataset.CodingSchemeIdentificationSequence = [codes.private_scheme()]
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.CurrentRequestedProcedureEvidenceSequence = [evidence(selected)]
    root = content.container(
        dcm("113000", "Of Interest"),
        [
            language(),
            *observer(result.model, result.software_version),
            content.text(dcm("113012", "Key Object Description"), _description(about, chosen)),
            *(content.reference("IMAGE", None, reference(header)) for header in selected),
        ],
        template="2010",
        relationship="",
    )
    dataset.update(root)
    return dataset


def _description(about: Subject, chosen: dict[str, tuple[int, ...]]) -> str:
    findings: dict[str, Finding] = {finding.label: finding for finding in about.result.findings}
    lines = [
        f"{captions.verdict(findings[label])}: {'; '.join(about.place(index) for index in indices)}."
        for label, indices in chosen.items()
        if indices
    ]
    return " ".join([*lines, "Slices that influenced the model most.", captions.NOT_FOR_DIAGNOSIS])
