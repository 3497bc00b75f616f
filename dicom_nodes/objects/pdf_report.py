"""One page for humans: an Encapsulated PDF (PS3.3 A.45.1) with film, explanation, table, doubts and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from dicom_nodes.objects import captions, codes, subject
from dicom_nodes.objects.derived import Kind, reference, start
from dicom_nodes.objects.page import typeset
from dicom_nodes.objects.part10 import tolerant
from dicom_nodes.objects.secondary_capture import burned_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset

    from dicom_nodes.objects.subject import Subject
    from service.images import Image, Series
    from service.results import Result

KIND = "pdf-report"
PLACE = 6


@tolerant()
def build(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the page about one image."""
    return _build(subject.of_image(source, image, subject.in_print(result)))


@tolerant()
def build_series(headers: Sequence[Dataset], series: Series, result: Result) -> Dataset:
    """Build the page about a series, with the slice that stands for it."""
    return _build(subject.of_series(headers, series, subject.in_print(result)))


def _build(about: Subject) -> Dataset:
    result = about.result
    kind = Kind(
        name=KIND,
        sop_class_uid=EncapsulatedPDFStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="DOC",
        place=PLACE,
        series_description=f"AI page ({result.pipeline})",
    )
    dataset = start(about.header, result, kind)
    _, finding = subject.default_explanation(result)
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = ""
    dataset.BurnedInAnnotation = burned_in(about.header)
    dataset.SourceInstanceSequence = [_source(header) for header in about.headers]
    dataset.DocumentTitle = f"AI analysis: {captions.verdict(finding)}"
    dataset.ConceptNameCodeSequence = [codes.item(codes.private("ai-report", "AI analysis report"))]
    dataset.CodingSchemeIdentificationSequence = [codes.private_scheme()]
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document = typeset(about)
    dataset.EncapsulatedDocumentLength = len(document)
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    return dataset


def _source(header: Dataset) -> Dataset:
    item = reference(header)
    item.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_IMAGE)]
    return item
