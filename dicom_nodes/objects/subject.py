"""What an object is about: one image or the slices of a series, together with the result about it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects import contours
from dicom_nodes.objects.attributes import integer
from dicom_nodes.objects.captions import is_shown
from dicom_nodes.objects.typesetting import is_printable
from service.results import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

    from service.images import Image, Series
    from service.results import Attribution, Finding, Result


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Headers and images in one order, geometric for a series."""

    headers: tuple[Dataset, ...]
    images: tuple[Image, ...]
    result: Result
    series: Series | None = None
    """None for a single image."""
    _strengths: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)
    """Worked out once: a series' map has a hundred million values."""

    @property
    def header(self) -> Dataset:
        """The header that patient, study and equipment are taken from: the only one, or the first slice's."""
        return self.headers[0]

    def maps(self, attribution: Attribution) -> NDArray[np.float32]:
        """Return a map as (slices, rows, columns), one slice for a single image."""
        values = np.asarray(attribution.map, dtype=np.float32)
        return values if values.ndim == 3 else values[None]  # noqa: PLR2004 - slices, rows, columns

    def magnitude(self, attribution: Attribution, index: int) -> NDArray[np.float32]:
        """Return the positive part of a map on one slice, scaled so that the maximum of all slices is 1."""
        peak = float(self._strength(attribution)[0].max(initial=0.0))
        values = contours.positive(self.maps(attribution)[index])
        return values / np.float32(peak) if peak > 0.0 else values

    def influence(self, attribution: Attribution) -> NDArray[np.float64]:
        """Return the sum of the positive part on each slice, shape (slices,), relative to the map's maximum."""
        peaks, sums = self._strength(attribution)
        peak = float(peaks.max(initial=0.0))
        return np.asarray(sums / peak if peak > 0.0 else sums)

    def _strength(self, attribution: Attribution) -> NDArray[np.float64]:
        """Return the maximum and the sum of the positive part on each slice, shape (2, slices)."""
        key = (attribution.method, attribution.finding)
        if key not in self._strengths:
            slices = [contours.positive(values) for values in self.maps(attribution)]
            self._strengths[key] = np.array([[values.max(), values.sum(dtype=float)] for values in slices]).T
        return self._strengths[key]

    def place(self, index: int) -> str:
        """Say which slice this is, as people count them; nothing for a single image."""
        if self.series is None:
            return ""
        number = integer(self.headers[index], "InstanceNumber")
        image = f", image number {number}" if number else ""
        return f"Slice {index + 1} of {len(self.headers)}{image}"


def of_image(source: Dataset, image: Image, result: Result) -> Subject:
    """Return the subject of a single image."""
    return Subject(headers=(source,), images=(image,), result=result)


def of_series(headers: Sequence[Dataset], series: Series, result: Result) -> Subject:
    """Return the subject of a series.

    Args:
        headers: of the slices, in the order of `series.slices`.
        series: the slices.
        result: what was found in them.
    """
    if len(headers) != len(series.slices):
        raise ValueError("a series needs one header per slice")
    return Subject(headers=tuple(headers), images=series.slices, result=result, series=series)


def in_print(result: Result) -> Result:
    """Return the result for pictures: a label that their faces cannot draw gives way to its code's meaning.

    Reports are UTF-8 and keep the label.
    """
    renamed = {
        finding.label: finding.code.meaning
        for finding in result.findings
        if not is_printable(finding.label) and is_printable(finding.code.meaning)
    }
    if not renamed:
        return result
    return dataclasses.replace(
        result,
        findings=tuple(
            dataclasses.replace(finding, label=renamed.get(finding.label, finding.label)) for finding in result.findings
        ),
        attributions=tuple(
            dataclasses.replace(attribution, finding=renamed.get(attribution.finding, attribution.finding))
            for attribution in result.attributions
        ),
    )


def default_explanation(result: Result) -> tuple[Attribution | None, Finding]:
    """Return the explanation that is drawn large and the finding that it explains."""
    for finding in explained_findings(result)[:1]:
        return explanations_of(result, finding)[0], finding
    return None, result.findings[0]


def explanations_of(result: Result, finding: Finding) -> tuple[Attribution, ...]:
    """Return every explanation of a finding: the one that is drawn large, then the others in the pipeline's order.

    Drawn large is the method that the pipeline names first. Where its map must not be shown, the first one that is
    reliable stands in for it, else the first one that may be shown: a reader who opens the result sees a map wherever
    there is one that may be seen, and `stood_in_for` tells that it is not the usual one. On a film that is called
    negative nothing stands in: an outline whose first words are doubts helps nobody there.
    """
    found = _in_order(result, finding)
    if not found or is_shown(found[0]) or not finding.positive:
        return found
    drawn = min(found, key=_rank)
    return (drawn, *(each for each in found if each is not drawn))


def stood_in_for(result: Result, finding: Finding) -> Attribution | None:
    """Return the default explanation of a finding when another one is drawn in its place."""
    default, drawn = _in_order(result, finding)[:1], explanations_of(result, finding)[:1]
    return default[0] if default and default[0] is not drawn[0] else None


def _in_order(result: Result, finding: Finding) -> tuple[Attribution, ...]:
    return tuple(attribution for attribution in result.attributions if attribution.finding == finding.label)


def _rank(attribution: Attribution) -> int:
    """Order explanations by how far they may be trusted; of equals the first one stays first."""
    reliable = attribution.assessment is not None and attribution.assessment.verdict is Verdict.RELIABLE
    return 0 if reliable else 1 if is_shown(attribution) else 2


def explained_findings(result: Result) -> tuple[Finding, ...]:
    """Return the findings that have an explanation, the default one first."""
    order = list(dict.fromkeys(attribution.finding for attribution in result.attributions))
    labels = {finding.label: finding for finding in result.findings}
    return tuple(labels[label] for label in order if label in labels)
