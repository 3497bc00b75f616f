"""Puts a model to the test: answers, figures and where its explanations lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workers.evaluation.cases import answer_cases, region_of
from workers.evaluation.figures import Figures, measure
from workers.evaluation.localisation import Localisation, localise
from workers.evaluation.shortcuts import Shortcuts, find_shortcuts
from workers.evaluation.subgroups import Subgroup, by_subgroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from workers.evaluation.cases import Answer, Case
    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a test found; `truth` and `probability` have one entry per case."""

    label: str
    """Name of the finding."""
    figures: Figures
    localisation: Mapping[str, Localisation]
    """By explainer; empty when no lesion's place is known."""
    truth: NDArray[np.int64]
    probability: NDArray[np.float64]
    shortcuts: Shortcuts
    subgroups: tuple[Subgroup, ...] = ()


def evaluate_model(
    classifier: PackagedClassifier,
    explainers: Sequence[Explainer],
    cases: Sequence[Case],
    *,
    label: int = 0,
    advance: Callable[[int], None],
) -> Evaluation:
    """Answer every case and measure the answers on one label; `advance` hears of each case that is done."""
    answers = []
    for answer in answer_cases(classifier, explainers, cases, label=label):
        answers.append(answer)
        advance(1)
    truth = np.array([answer.case.truth for answer in answers], dtype=np.int64)
    probability = np.array([answer.probability for answer in answers], dtype=np.float64)
    evaluated = classifier.card.labels[label]
    points = [entry.operating_point() for entry in evaluated.operating_points]
    point = evaluated.default_operating_point()
    return Evaluation(
        label=evaluated.name,
        figures=measure(truth, probability, point=point, points=points),
        localisation=_localise(answers, point.threshold),
        truth=truth,
        probability=probability,
        shortcuts=find_shortcuts(
            [answer.lettered - answer.probability for answer in answers if answer.lettered is not None],
            [answer.lung_energy for answer in answers],
            [(answer.probability, answer.shadowed) for answer in answers if answer.shadowed is not None],
            point.threshold,
        ),
        subgroups=by_subgroup([answer.case.groups for answer in answers], truth, probability, point.threshold),
    )


def _localise(answers: Sequence[Answer], threshold: float) -> dict[str, Localisation]:
    located = [answer for answer in answers if answer.maps]
    if not located:
        return {}
    names = located[0].maps
    regions = [region_of(answer.case, next(iter(answer.maps.values())).shape) for answer in located]
    found = [answer.lungs for answer in located]
    # A film on which no lungs were found counts as missed by the prior, unless none were found at all.
    lungs = [np.zeros(r.shape, np.float32) if f is None else f for f, r in zip(found, regions, strict=True)]
    if all(field is None for field in found):
        lungs = []
    called = [answer.probability >= threshold for answer in located]
    return {name: localise([answer.maps[name] for answer in located], regions, lungs, called=called) for name in names}
