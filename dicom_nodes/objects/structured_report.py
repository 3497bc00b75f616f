"""The report that machines and viewers read: Comprehensive 3D SR by TID 1500, and the note of a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, ExplicitVRLittleEndian

from dicom_nodes.objects import captions, codes, contours, identity
from dicom_nodes.objects import content_items as content
from dicom_nodes.objects.attributes import integer, spacing
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import Kind, reference, start
from dicom_nodes.objects.part10 import tolerant
from dicom_nodes.objects.report_document import add_document, language, observer
from service.types import Code

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from dicom_nodes.objects.contours import Region
    from service.types import Attribution, Finding, Image, ModelIdentity, Refusal, Result

KIND = "structured-report"
REFUSAL_KIND = "refusal-report"
SERIES_NUMBER = 9002
REFUSAL_SERIES_NUMBER = 9003
LEVEL = 0.5
"""Regions are outlined at half of the map's maximum."""
_QUALITATIVE = Code(value="C0034375", scheme="UMLS", meaning="Qualitative Evaluations")
_AREA = Code(value="42798000", scheme="SCT", meaning="Area")
_FINDING_SITE = Code(value="363698007", scheme="SCT", meaning="Finding Site")
_RESEARCH = "Research use; not for primary diagnosis."


@tolerant()
def build(source: Dataset, image: Image, result: Result) -> Dataset:
    """Build the report about one image.

    A finding at or above its operating point has one planar region per outline of its explanation at half
    maximum. A finding below has one region, the whole image: some viewers drop a report if any measurement
    group lacks coordinates, and an outline of a part would read as a lesion.

    Args:
        source: header of the analysed instance.
        image: its grey values; only the pixel spacing and the grid are used.
        result: what was found.

    Returns:
        A file-ready data set.
    """
    kind = Kind(
        name=KIND,
        sop_class_uid=Comprehensive3DSRStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="SR",
        series_number=SERIES_NUMBER,
        series_description=f"AI report: {result.findings[0].label}",
    )
    dataset = start(source, result, kind)
    add_document(source, dataset, result.supersedes)
    explained = {attribution.finding: attribution for attribution in reversed(result.attributions)}
    subjects = [
        _Subject(
            source=source,
            image=image,
            result=result,
            finding=finding,
            attribution=explained.get(finding.label),
        )
        for finding in result.findings
    ]
    groups = [group for subject in subjects for group in _groups(subject)]
    root = content.container(
        dcm("126000", "Imaging Measurement Report"),
        [
            *_context(image, result.model, result.software_version),
            content.container(dcm("126010", "Imaging Measurements"), groups),
            content.container(_QUALITATIVE, _evaluations(result)),
        ],
        template="1500",
        relationship="",
    )
    dataset.update(root)
    return dataset


@tolerant()
def build_refusal(source: Dataset, refusal: Refusal) -> Dataset:
    """Build a Basic Text SR that says that, and why, an instance was not analysed.

    It needs nothing of the source but its UIDs, and every viewer that shows any report shows this one.
    """
    kind = Kind(
        name=REFUSAL_KIND,
        sop_class_uid=BasicTextSRStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="SR",
        series_number=REFUSAL_SERIES_NUMBER,
        series_description="AI report: not analysed",
    )
    dataset = start(source, refusal, kind)
    add_document(source, dataset, ())
    value_type = "IMAGE" if integer(source, "Rows") else "COMPOSITE"
    finding = dcm("121071", "Finding")
    lines = [f"Not analysed: {refusal.reason}", *refusal.details]
    root = content.container(
        codes.private("refusal", "AI analysis not performed"),
        [
            language(),
            *observer(refusal.model, refusal.software_version),
            *(content.text(finding, line) for line in lines),
            content.text(dcm("121106", "Comment"), f"This says nothing about the patient. {_RESEARCH}"),
            content.reference(value_type, dcm("121324", "Source image"), reference(source)),
        ],
        relationship="",
    )
    dataset.update(root)
    return dataset


def _context(image: Image, model: ModelIdentity, software_version: str) -> list[Dataset]:
    procedure = codes.procedure_code(image.header.modality, image.header.body_part)
    return [
        language(),
        *observer(model, software_version),
        content.code(dcm("121058", "Procedure reported"), procedure, relationship=content.MODIFIER),
    ]


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What the groups of one finding are about."""

    source: Dataset
    image: Image
    result: Result
    finding: Finding
    attribution: Attribution | None


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One outline of a finding's explanation; the whole image has no share of influence."""

    region: Region
    ordinal: int
    share: float | None


def _groups(subject: _Subject) -> list[Dataset]:
    return [_group(subject, part) for part in _parts(subject)]


def _parts(subject: _Subject) -> list[_Part]:
    attribution = subject.attribution
    regions: list[Region] = []
    if subject.finding.positive and attribution is not None:
        magnitude = contours.magnitude(attribution.map)
        regions = contours.regions(contours.outlined(magnitude), LEVEL)
    if not regions:
        return [_Part(region=contours.whole_image(*subject.image.grey.shape), ordinal=0, share=None)]
    total = float(magnitude.sum(dtype=float))
    return [
        _Part(
            region=region,
            ordinal=ordinal,
            share=float(magnitude[contours.inside(region, magnitude.shape)].sum(dtype=float)) / total,
        )
        for ordinal, region in enumerate(regions)
    ]


def _group(subject: _Subject, part: _Part) -> Dataset:
    """Planar ROI Measurements and Qualitative Evaluations (TID 1410).

    The probability belongs to the image, so only the first group of a finding has it.
    """
    finding, header = subject.finding, subject.image.header
    uid = identity.tracking_uid(
        job_id=subject.result.job_id,
        source_sop_uid=header.sop_instance_uid,
        finding=finding.label,
        ordinal=part.ordinal,
    )
    site = codes.finding_site(header.body_part)
    items = [
        content.text(
            dcm("112039", "Tracking Identifier"),
            _tracking_identifier(finding, part),
            relationship=content.CONTEXT,
        ),
        content.uid(dcm("112040", "Tracking Unique Identifier"), uid, relationship=content.CONTEXT),
        content.code(dcm("121071", "Finding"), _finding_code(finding)),
        *_explanation(subject.attribution),
        *([content.code(_FINDING_SITE, site)] if site else []),
        content.outline(dcm("111030", "Image Region"), part.region.points, reference(subject.source)),
        *(_probability(subject.result, finding) if part.ordinal == 0 else []),
        *_measurements(subject, part),
    ]
    return content.container(dcm("125007", "Measurement Group"), items, template="1410")


def _tracking_identifier(finding: Finding, part: _Part) -> str:
    if part.share is None:
        return f"Whole image: {captions.verdict(finding)}"
    return f"{finding.label}: model influence, region {part.ordinal + 1}"


def _finding_code(finding: Finding) -> Code:
    """Return what a viewer prints as the finding; below the operating point never the disease by itself."""
    if finding.positive:
        return finding.code
    return codes.private("not-indicated", f"{finding.label} not indicated"[:64])


def _explanation(attribution: Attribution | None) -> list[Dataset]:
    if attribution is None:
        return []
    method = codes.method_code(attribution.method, attribution.title)
    return [content.code(dcm("130401", "Visual explanation"), method)]


def _probability(result: Result, finding: Finding) -> list[Dataset]:
    threshold = codes.private("threshold", "Operating point threshold")
    return [
        content.number(
            dcm("111012", "Certainty of Finding"),
            100.0 * finding.probability,
            codes.PERCENT,
            children=_algorithm(result),
        ),
        content.number(threshold, 100.0 * finding.operating_point.threshold, codes.PERCENT),
        content.code(finding.code, codes.DETECTED if finding.positive else codes.NOT_DETECTED),
        content.text(codes.private("verdict", "Verdict"), captions.verdict(finding)),
    ]


def _algorithm(result: Result) -> list[Dataset]:
    """Algorithm Identification (TID 4019)."""
    parameters = [f"model sha256 {result.model.sha256}"]
    for attribution in result.attributions:
        settings = ", ".join(f"{key}={value}" for key, value in sorted(attribution.parameters.items()))
        parameters.append(f"{attribution.title}: {settings}" if settings else attribution.title)
    return [
        content.text(dcm("111001", "Algorithm Name"), result.model.title, relationship=content.MODIFIER),
        content.text(dcm("111003", "Algorithm Version"), result.model.version, relationship=content.MODIFIER),
        *(
            content.text(dcm("111002", "Algorithm Parameters"), parameter, relationship=content.MODIFIER)
            for parameter in parameters
        ),
    ]


def _measurements(subject: _Subject, part: _Part) -> list[Dataset]:
    """Area and share of influence of a part of the image; of the whole image they would say nothing."""
    if part.share is None:
        return []
    measured = [
        content.number(
            codes.private("influence-share", "Share of positive influence inside the region"),
            100.0 * part.share,
            codes.PERCENT,
        )
    ]
    if subject.image.pixel_spacing_mm is not None:
        row_mm, column_mm = subject.image.pixel_spacing_mm
        area = content.number(_AREA, part.region.area * row_mm * column_mm, codes.SQUARE_MILLIMETRE)
        if not spacing(subject.source, "PixelSpacing"):
            plane = content.text(dcm("121106", "Comment"), "In the detector plane", relationship=content.PROPERTIES)
            area.ContentSequence = [plane]
        measured.append(area)
    return measured


def _evaluations(result: Result) -> list[Dataset]:
    """What a reader must know, in words: every finding, how to read a region, limits."""
    comment = dcm("121106", "Comment")
    table = [
        f"{captions.verdict(finding)}: probability {captions.percent(finding.probability)}. "
        f"{captions.operating_point(finding)}."
        for finding in result.findings
    ]
    regions = (
        f"Regions outline where {attribution.title} is at or above 50 % of its maximum for "
        f"{attribution.finding}: what influenced the model, not the extent of disease."
        for attribution in result.attributions
        if any(finding.positive and finding.label == attribution.finding for finding in result.findings)
    )
    notes = [
        *regions,
        f"Model trained on: {result.model.trained_on}",
        f"Limits of the model: {result.model.limits}",
        captions.replaces(result),
        _RESEARCH,
    ]
    return [
        *(content.text(codes.private("verdict", "Verdict"), line) for line in table),
        *(content.text(comment, note) for note in notes if note),
    ]
