"""What a report says of each finding, region and explanation: measurement groups (TID 1410, TID 1501), evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects import captions, codes, contours, identity
from dicom_nodes.objects import content_items as content
from dicom_nodes.objects.attributes import macro, spacing
from dicom_nodes.objects.codes import dcm
from dicom_nodes.objects.derived import reference
from dicom_nodes.objects.key_slices import key_slices, strongest_slice
from dicom_nodes.objects.subject import explanations_of
from service.concepts import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset

    from dicom_nodes.objects.contours import Region
    from dicom_nodes.objects.subject import Subject
    from service.results import Attribution, Finding, Measure, Result

LEVEL = 0.5
"""Regions are outlined at half of the map's maximum."""
_LABEL = 0.15
"""Of the rows: how far labels of several findings stand apart."""
_AREA = Code(value="42798000", scheme="SCT", meaning="Area")
_FINDING_SITE = Code(value="363698007", scheme="SCT", meaning="Finding Site")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One outline of an explanation, or the image as a whole, which has neither outline nor share of influence."""

    region: Region | None
    index: int
    """Of the slice."""
    ordinal: int
    share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Topic:
    """A finding with one of its explanations, or none."""

    about: Subject
    finding: Finding
    attribution: Attribution | None


def measurement_groups(about: Subject) -> list[Dataset]:
    """Return the groups of every finding: one per outline of its default explanation at half maximum (TID 1410).

    Where there is nothing to outline (below the operating point, no map, a map that must not be shown) the finding is
    the image's (TID 1501): an outline would read as a lesion. Further explanations have no group, as a viewer draws
    and labels every group at once; `evaluations` tells of them.
    """
    groups = []
    for order, finding in enumerate(about.result.findings):
        default = (*explanations_of(about.result, finding), None)[0]
        topic = _Topic(about=about, finding=finding, attribution=default)
        groups += [_group(topic, part, order) for part in _parts(topic) or [_whole(topic)]]
    return groups


def evaluations(about: Subject) -> list[Dataset]:
    """Return what is told of each explanation beside the default one: largest outline, verdict, reason, figures."""
    return [
        _evaluation(_Topic(about=about, finding=finding, attribution=attribution), attribution)
        for finding in about.result.findings
        for attribution in explanations_of(about.result, finding)[1:]
    ]


def _evaluation(topic: _Topic, attribution: Attribution) -> Dataset:
    outlines = [
        content.outline(
            dcm("111030", "Image Region"),
            part.region.points,
            reference(topic.about.headers[part.index]),
            relationship=content.INFERRED,
        )
        for part in _parts(topic)[:1]
        if part.region is not None
    ]
    about = content.text(dcm("121071", "Finding"), captions.verdict(topic.finding), relationship=content.PROPERTIES)
    verdict = _verdict(attribution, _figures(attribution), relationship=content.PROPERTIES)
    children = [about, verdict, *outlines]
    return content.code(dcm("130401", "Visual explanation"), _method(attribution), children=children)


def _parts(topic: _Topic) -> list[_Part]:
    about, attribution = topic.about, topic.attribution
    found: list[_Part] = []
    if topic.finding.positive and attribution is not None and captions.is_shown(attribution):
        total = float(about.influence(attribution).sum()) or 1.0
        for index in key_slices(about, topic.finding) if about.series else (0,):
            values = about.magnitude(attribution, index)
            for region in contours.regions(contours.outlined(values), LEVEL):
                share = float(values[contours.inside(region, values.shape)].sum(dtype=float)) / total
                found.append(_Part(region=region, index=index, ordinal=len(found), share=share))
    return found


def _whole(topic: _Topic) -> _Part:
    return _Part(region=None, index=strongest_slice(topic.about, topic.finding), ordinal=0)


def _group(topic: _Topic, part: _Part, order: int) -> Dataset:
    """Planar ROI Measurements and Qualitative Evaluations (TID 1410), or without the ROI (TID 1501).

    The probability belongs to the image and the verdict to the explanation, so only the first group has them. Viewers
    print a group's first five numbers beside its outline, in this order.
    """
    finding, about, first = topic.finding, topic.about, part.ordinal == 0
    site = codes.finding_site(about.images[part.index].header.body_part)
    items = [
        content.text(dcm("112039", "Tracking Identifier"), _identifier(topic, part), relationship=content.CONTEXT),
        content.uid(
            dcm("112040", "Tracking Unique Identifier"), _tracking_uid(topic, part), relationship=content.CONTEXT
        ),
        content.code(dcm("121071", "Finding"), _finding_code(finding)),
        *_explanation(topic.attribution),
        *([content.code(_FINDING_SITE, site, relationship=content.MODIFIER)] if site else []),
        _place(topic, part, order),
        *(_probability(about.result, finding) if first else []),
        *_measurements(topic, part),
        *(_trust(topic.attribution, part) if first else []),
    ]
    template = "1501" if part.region is None else "1410"
    return content.container(dcm("125007", "Measurement Group"), items, template=template)


def _place(topic: _Topic, part: _Part, order: int) -> Dataset:
    """Return the outline, or where a viewer may write the label of a finding that is the image's.

    OHIF shows a report only if every group has coordinates, and writes a group's numbers beside them. A polyline of
    no extent at the left edge draws nothing and claims no region; TID 1501 is extensible.
    """
    image = reference(topic.about.headers[part.index])
    if part.region is not None:
        return content.outline(dcm("111030", "Image Region"), part.region.points, image)
    rows = topic.about.images[part.index].grey.shape[0]
    nowhere = np.tile([0.0, rows * min(0.9, _LABEL * order)], (3, 1))
    return content.outline(codes.private("label-place", "Place of a label; no region"), nowhere, image)


def _identifier(topic: _Topic, part: _Part) -> str:
    where = f", slice {part.index + 1}" if topic.about.series else ""
    if part.region is not None:
        return f"{topic.finding.label}: model influence, region {part.ordinal + 1}{where}"
    return f"Whole image: {captions.verdict(topic.finding)}{where}"


def _tracking_uid(topic: _Topic, part: _Part) -> str:
    return identity.tracking_uid(
        job_id=topic.about.result.job_id,
        source_sop_uid=topic.about.images[part.index].header.sop_instance_uid,
        finding=topic.finding.label,
        ordinal=part.ordinal,
    )


def _finding_code(finding: Finding) -> Code:
    """Return what a viewer prints as the finding; below the operating point never the disease by itself."""
    if finding.positive:
        return finding.code
    return codes.private("not-indicated", f"{finding.label} not indicated"[:64])


def _explanation(attribution: Attribution | None) -> list[Dataset]:
    if attribution is None:
        return []
    return [content.code(dcm("130401", "Visual explanation"), _method(attribution))]


def _method(attribution: Attribution) -> Code:
    return codes.method_code(attribution.method, attribution.title)


def _probability(result: Result, finding: Finding) -> list[Dataset]:
    # "Certainty" of a finding that says "not indicated" would be read the wrong way round.
    certainty = dcm("111012", "Certainty of Finding")
    name = certainty if finding.positive else codes.private("probability", f"Probability of {finding.label}"[:64])
    threshold = codes.private("threshold", "Operating point")
    return [
        content.number(name, 100.0 * finding.probability, codes.PERCENT, children=_algorithm(result)),
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
            for parameter in dict.fromkeys(parameters)
        ),
    ]


def _trust(attribution: Attribution | None, part: _Part) -> list[Dataset]:
    """Return the verdict on an explanation with its figures: beside the outline, or within the verdict on none."""
    if attribution is None:
        return []
    if part.region is None:
        return [_verdict(attribution, _figures(attribution))]
    return [_verdict(attribution, ()), *(_figure(measure) for measure in _figures(attribution))]


def _verdict(attribution: Attribution, figures: Sequence[Measure], *, relationship: str = content.CONTAINS) -> Dataset:
    doubts = captions.doubts(attribution)
    reason = codes.private("reason", "Reason")
    children = [content.text(reason, doubts, relationship=content.PROPERTIES)] if doubts else []
    children += [_figure(measure, relationship=content.PROPERTIES) for measure in figures]
    unasked = captions.senseless(attribution)
    if unasked:
        children.append(
            content.text(codes.private("not-measured", "Not measured"), unasked, relationship=content.PROPERTIES)
        )
    name = codes.private("trust", "Verdict on the explanation")
    return content.code(name, codes.trust_code(attribution.assessment), relationship=relationship, children=children)


def _figures(attribution: Attribution) -> list[Measure]:
    """Return the figures that the verdict rests on; where the map lies is what people understand, so it is first."""
    measures = attribution.assessment.measures if attribution.assessment else ()
    return sorted((measure for measure in measures if math.isfinite(measure.value)), key=_is_technical)


def _is_technical(measure: Measure) -> bool:
    return measure.name != "energy-lungs"


def _figure(measure: Measure, *, relationship: str = content.CONTAINS) -> Dataset:
    share = captions.is_share(measure)
    unit, factor = (codes.PERCENT, 100.0) if share else (codes.unit(measure.unit), 1.0)
    children = []
    if measure.baseline is not None and math.isfinite(measure.baseline):
        compared = codes.private("baseline", "Value for comparison")
        children.append(content.number(compared, factor * measure.baseline, unit, relationship=content.PROPERTIES))
    name = codes.measure_code(measure)
    return content.number(name, factor * measure.value, unit, relationship=relationship, children=children)


def _measurements(topic: _Topic, part: _Part) -> list[Dataset]:
    """Area and share of influence of a part of the image; of the whole image they would say nothing."""
    if part.region is None:
        return []
    measured = [
        content.number(
            codes.private("influence-share", "Share of influence"),
            100.0 * part.share,
            codes.PERCENT,
        )
    ]
    distances = topic.about.images[part.index].pixel_spacing_mm
    if distances is not None:
        area = content.number(_AREA, part.region.area * distances[0] * distances[1], codes.SQUARE_MILLIMETRE)
        if not spacing(macro(topic.about.headers[part.index], "PixelMeasuresSequence"), "PixelSpacing"):
            plane = content.text(dcm("121106", "Comment"), "In the detector plane", relationship=content.PROPERTIES)
            area.ContentSequence = [plane]
        measured.append(area)
    return measured
