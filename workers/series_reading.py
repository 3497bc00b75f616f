"""How a model reads a series: slice by slice with an aggregation, or as one volume; and what its maps are then."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.errors import PipelineError
from service.results import Assessment, Attribution, Measure, Verdict
from workers.assessors.case import Kind
from workers.assessors.stack_regions import StackRegions
from workers.explaining import Explained, explain_input
from workers.findings import findings_of
from workers.models.calibration import pooled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from service.images import Image, Series
    from service.model_card import SeriesReading
    from service.pipelines import Explanation as Limits
    from service.results import Finding
    from workers.assessors.regions import Regions
    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier

CHUNK = 16
"""Slices in one forward pass."""
_WORST_FIRST = (Verdict.NOT_SHOWN, Verdict.CAUTION, Verdict.RELIABLE)


def reading_of(classifier: PackagedClassifier) -> SeriesReading:
    """Return how the model reads series.

    Raises:
        PipelineError: it reads single images only.
    """
    if classifier.card.series is None:
        raise PipelineError(f"model '{classifier.card.name}' reads single images: its card has no [series]")
    return classifier.card.series


def find_in_series(classifier: PackagedClassifier, series: Series) -> tuple[Finding, ...]:
    """Classify a series.

    Raises:
        NotEligibleError: the series has no contrast or values that are not finite.
        ModelError: the network answered with NaN or infinity.
    """
    reading = reading_of(classifier)
    batch = classifier.preprocess_series(series)
    logits = torch.cat([classifier.exact_logits(chunk) for chunk in torch.split(batch, CHUNK)])
    if reading.reading == "volume":
        return findings_of(classifier.card, classifier.probabilities(logits)[0])
    together = pooled(
        logits.double().cpu().numpy(), reading.aggregation, top_k=reading.top_k, sharpness=reading.sharpness
    )
    return findings_of(
        classifier.card,
        classifier.probabilities(torch.from_numpy(together))[0],
        slices=classifier.probabilities(logits),
    )


@dataclass(frozen=True, kw_only=True)
class Part:
    """What of a series goes through the network at once, ready to be explained: one slice, or the volume."""

    classifier: PackagedClassifier
    batch: torch.Tensor
    to_source: Callable[[torch.Tensor], NDArray[np.float32]]
    regions: Callable[..., Regions]
    kind: Kind


class Parts:
    """A series, cut as its model reads it."""

    def __init__(self, classifier: PackagedClassifier, series: Series) -> None:
        self._view = classifier.of_series(series)
        self._slices = series.slices
        self._regions = StackRegions(series, classifier.card.input)

    def volume(self) -> Part:
        """Return the whole, for a three-dimensional network."""
        return self._part(self._slices[0], Kind.VOLUME, self._regions.of_volume)

    def slice(self, index: int) -> Part:
        """Return one slice, for a two-dimensional network."""
        return self._part(self._slices[index], Kind.SLICE, partial(self._regions.of_slice, index))

    def _part(self, image: Image, kind: Kind, regions: Callable[[], Regions]) -> Part:
        return Part(
            classifier=self._view,
            batch=self._view.preprocess(image),
            to_source=partial(self._view.to_source, image),
            # The regions lie on the input's grid already.
            regions=lambda *_: regions(),
            kind=kind,
        )


def _explain_part(
    part: Part,
    explainers: Sequence[Explainer],
    labels: Sequence[int],
    limits: Limits,
    *,
    doubts: Mapping[str, Sequence[str]],
    now: Callable[[], float],
) -> Explained:
    return explain_input(
        part.classifier,
        explainers,
        part.batch,
        labels,
        limits,
        to_source=part.to_source,
        regions=part.regions,
        kind=part.kind,
        doubts=doubts,
        now=now,
    )


def explain_series(
    classifier: PackagedClassifier,
    explainers: Sequence[Explainer],
    series: Series,
    *,
    findings: Sequence[Finding],
    labels: Sequence[int],
    limits: Limits,
    doubts: Mapping[str, Sequence[str]],
    now: Callable[[], float] = time.monotonic,
) -> Explained:
    """Explain labels of a series; maps have shape (slices, rows, columns), 0 where nothing was explained."""
    parts = Parts(classifier, series)
    if reading_of(classifier).reading == "volume":
        return _explain_part(parts.volume(), explainers, labels, limits, doubts=doubts, now=now)
    by_name = {finding.label: finding for finding in findings}
    found: list[tuple[tuple[int, ...], list[Explained]]] = []
    most = reading_of(classifier).explained_slices
    runs = len(labels) * min(most, len(series.slices))
    share = limits.model_copy(update={"budget_s": limits.budget_s / runs, "brake_s": limits.brake_s / runs})
    for label in labels:
        chosen = slices_to_explain(by_name[classifier.card.labels[label].name], most)
        explained = [
            _explain_part(parts.slice(index), explainers, [label], share, doubts=doubts, now=now) for index in chosen
        ]
        found.append((chosen, explained))
    return Explained(
        attributions=tuple(a for chosen, parts in found for a in _stacked(series, chosen, parts)),
        contradictions=tuple(
            f"Slice {index + 1}: {text}"
            for chosen, parts in found
            for index, part in zip(chosen, parts, strict=True)
            for text in part.contradictions
        ),
        unavailable=tuple(dict.fromkeys(text for _, parts in found for part in parts for text in part.unavailable)),
    )


def slices_to_explain(finding: Finding, most: int) -> tuple[int, ...]:
    """Return the most probable slices in geometric order: those at or above the operating point, at least one."""
    values = np.array(finding.slice_probabilities)
    ranked = [int(index) for index in np.argsort(-values, kind="stable")[:most]]
    above = [index for index in ranked if values[index] >= finding.operating_point.threshold]
    return tuple(sorted(above or ranked[:1]))


def _stacked(series: Series, chosen: Sequence[int], parts: Sequence[Explained]) -> list[Attribution]:
    """Join the maps of single slices to one per method, in the order of the first slice that has it."""
    by_method: dict[str, dict[int, Attribution]] = {}
    for index, part in zip(chosen, parts, strict=True):
        for attribution in part.attributions:
            by_method.setdefault(attribution.method, {})[index] = attribution
    return [_joined(series, slices) for slices in by_method.values()]


def _joined(series: Series, slices: Mapping[int, Attribution]) -> Attribution:
    first = next(iter(slices.values()))
    assessment = _together({index: a.assessment for index, a in slices.items() if a.assessment is not None})
    hidden = {
        index
        for index, a in slices.items()
        if a.assessment is not None and a.assessment.verdict is Verdict.NOT_SHOWN and len(slices) > 1
    }
    # A slice whose own map may not be shown stays empty, unless none may be: then the verdict hides them all.
    shown = {index: a for index, a in slices.items() if index not in hidden} or dict(slices)
    spreads = {index: a.spread for index, a in shown.items() if a.spread is not None}
    numbers = ", ".join(str(index + 1) for index in slices)
    return Attribution(
        method=first.method,
        title=first.title,
        finding=first.finding,
        map=_volume(series, {index: a.map for index, a in shown.items()}),
        parameters={**first.parameters, "slices": f"{numbers} of {len(series.slices)}"},
        seconds=sum(a.seconds for a in slices.values()),
        assessment=assessment,
        spread=_volume(series, spreads) if spreads else None,
    )


def _volume(series: Series, maps: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float32]:
    volume = np.zeros((len(series.slices), *series.slices[0].grey.shape), dtype=np.float32)
    for index, plane in maps.items():
        volume[index] = plane
    return volume


def _together(parts: Mapping[int, Assessment]) -> Assessment | None:
    """Judge a series by its slices: not shown when no slice is, else as the worst of those that are."""
    if not parts:
        return None
    shown = {i: part for i, part in parts.items() if part.verdict is not Verdict.NOT_SHOWN}
    judged = shown or parts
    verdicts = {part.verdict for part in judged.values()}
    verdict = next(verdict for verdict in _WORST_FIRST if verdict in verdicts)
    reasons = _reasons(judged)
    if shown and len(shown) < len(parts):
        left_out = ", ".join(str(i + 1) for i in parts if i not in shown)
        why = dict.fromkeys(part.reasons[0] for i, part in parts.items() if i not in shown and part.reasons)
        reasons.append(" ".join([f"Slices without a map that may be shown: {left_out}.", *why]))
        verdict = Verdict.CAUTION
    return Assessment(
        verdict=verdict,
        reasons=tuple(reasons),
        measures=_means(list(judged.values())),
        senseless=tuple(dict.fromkeys(sentence for part in judged.values() for sentence in part.senseless)),
    )


def _reasons(parts: Mapping[int, Assessment]) -> list[str]:
    """Return the reasons, with the slices that they hold for where that is not all of them."""
    slices: dict[str, list[int]] = {}
    for index, part in parts.items():
        for reason in part.reasons:
            slices.setdefault(reason, []).append(index)
    return [
        reason if len(indices) == len(parts) else f"Slice {', '.join(str(i + 1) for i in indices)}: {reason}"
        for reason, indices in slices.items()
    ]


def _means(parts: Sequence[Assessment]) -> tuple[Measure, ...]:
    """Return the mean of each figure over the slices that have it."""
    by_name: dict[str, list[Measure]] = {}
    for part in parts:
        for measure in part.measures:
            by_name.setdefault(measure.name, []).append(measure)
    return tuple(_mean(measures) for measures in by_name.values())


def _mean(measures: Sequence[Measure]) -> Measure:
    baselines = [measure.baseline for measure in measures if measure.baseline is not None]
    return Measure(
        name=measures[0].name,
        title=measures[0].title,
        value=float(np.mean([measure.value for measure in measures])),
        baseline=float(np.mean(baselines)) if baselines else None,
        unit=measures[0].unit,
    )
