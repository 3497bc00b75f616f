"""Which slices of a series a finding rests on, by the model's own figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects.captions import is_shown
from dicom_nodes.objects.subject import explanations_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dicom_nodes.objects.subject import Subject
    from service.results import Finding

MOST = 6
"""More slices than this are not a pointer but the series again."""
_LEAST_SHARE = 0.25
"""Of the strongest slice's influence; a slice with less is left out."""


def key_slices(subject: Subject, finding: Finding) -> tuple[int, ...]:
    """Return the slices that mattered, in geometric order, at most six.

    By the probabilities of single slices where the model gives them, else by how much positive influence a map
    that may be shown puts on each. Empty below the operating point, and when neither is known.
    """
    weights = weights_of(subject, finding)
    if not finding.positive or not weights.any():
        return ()
    floor = _floor(finding, weights)
    strongest = [int(index) for index in np.argsort(-weights, kind="stable")[:MOST]]
    return tuple(sorted(index for index in strongest if weights[index] >= floor))


def strongest_slice(subject: Subject, finding: Finding) -> int:
    """Return the slice that stands for the series: the heaviest one, else the middle one."""
    weights = weights_of(subject, finding)
    return int(np.argmax(weights)) if weights.any() else len(subject.headers) // 2


def weights_of(subject: Subject, finding: Finding) -> NDArray[np.float64]:
    """Return how much each slice carries, shape (slices,), zero everywhere when nothing is known."""
    if len(finding.slice_probabilities) == len(subject.headers):
        return np.asarray(finding.slice_probabilities, dtype=np.float64)
    for attribution in explanations_of(subject.result, finding):
        if is_shown(attribution):
            return subject.influence(attribution)
    return np.zeros(len(subject.headers))


def _floor(finding: Finding, weights: NDArray[np.float64]) -> float:
    """With probabilities the operating point decides, but the strongest slice always stays."""
    if len(finding.slice_probabilities) == len(weights):
        return min(finding.operating_point.threshold, float(weights.max()))
    return _LEAST_SHARE * float(weights.max())


def slices_to_cite(subject: Subject) -> tuple[int, ...]:
    """Return the slices that a report refers to: those that mattered for any finding, else the one that stands."""
    mattered = {index for finding in subject.result.findings for index in key_slices(subject, finding)}
    return tuple(sorted(mattered)) or (strongest_slice(subject, subject.result.findings[0]),)
