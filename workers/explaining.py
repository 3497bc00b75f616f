"""Runs the explainers of a pipeline over one input, measures every map, and says how far each may be trusted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from service.results import Assessment, Attribution, Verdict
from workers.assessors.agreement import contradictions
from workers.assessors.budget import Budget, forward_s
from workers.assessors.case import SERIES, Kind, Scene, Subject
from workers.assessors.consensus import FEWEST, METHOD, TITLE, consensus, medians
from workers.assessors.loading import load_assessors
from workers.assessors.regions import find_regions
from workers.assessors.verdict import EMPTY, judge, of_kind, with_thresholds
from workers.explaining_run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from service.images import Image
    from service.pipelines import Explanation as Limits
    from service.results import Measure
    from workers.assessors.case import Assessor, Criterion
    from workers.assessors.regions import Regions
    from workers.interfaces import Classifier, Explainer

CHEST = {"CHEST", "THORAX"}
HEAD = {"HEAD", "BRAIN", "SKULL"}
BELOW = "The finding is below its operating point: the map shows what came closest to it, not a finding."
HURRIED = "The machine was too slow to measure all of this map (explaining took more than {brake:g} s)."
MINORITY = "Only {passed} of {asked} methods passed their checks; the consensus joins no others."
NO_ANATOMY = "Where the map lies is not measured: the anatomy is looked for on chest radiographs and in series alone."
NO_SKULL = (
    "Whether the map lies inside the skull is not measured: the skull is found on CT alone, and asked for where the "
    "model's card says that the finding lies there."
)
DIVIDED = "The methods that it joins contradict each other."


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What came out: the method that the pipeline names first, the others in its order, then the consensus."""

    attributions: tuple[Attribution, ...]
    contradictions: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()


def explain_image(
    classifier: Classifier,
    explainers: Sequence[Explainer],
    image: Image,
    labels: Sequence[int],
    limits: Limits,
    *,
    doubts: Mapping[str, Sequence[str]] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Explained:
    """Explain labels of one image by every method that the budget allows, the cheapest first, and assess each map.

    `doubts` are reasons for caution that are known of a method before, by its name: a failed sanity check.
    """
    return explain_input(
        classifier,
        explainers,
        classifier.preprocess(image),
        labels,
        limits,
        to_source=partial(classifier.to_source, image),
        regions=partial(find_regions, image.grey, expected=classifier.card.input)
        if _reads_chests(classifier)
        else None,
        doubts=doubts,
        now=now,
    )


def _reads_chests(classifier: Classifier) -> bool:
    """Tell whether lungs are to be looked for: on another body part the estimate would find some all the same."""
    return not CHEST.isdisjoint(part.upper() for part in classifier.card.eligibility.body_parts)


def _unasked_skull(classifier: Classifier, label: int, kind: Kind) -> tuple[str, ...]:
    """Say so where a map of a head is not held against the skull."""
    reads_heads = not HEAD.isdisjoint(part.upper() for part in classifier.card.eligibility.body_parts)
    asked = bool(classifier.card.labels[label].target)
    return (NO_SKULL,) if reads_heads and kind in SERIES and not asked else ()


def _criteria(
    assessors: Sequence[Assessor], limits: Limits, kind: Kind, *, anatomy: bool
) -> tuple[tuple[Criterion, ...], tuple[str, ...]]:
    """Return what figures are held against, and why others are not taken."""
    chosen, senseless = of_kind([c for assessor in assessors for c in assessor.criteria], kind)
    every = with_thresholds(chosen, limits.thresholds)
    if anatomy:
        return every, senseless
    return tuple(criterion for criterion in every if not criterion.of_anatomy), (*senseless, NO_ANATOMY)


def explain_input(
    classifier: Classifier,
    explainers: Sequence[Explainer],
    batch: torch.Tensor,
    labels: Sequence[int],
    limits: Limits,
    *,
    to_source: Callable[[torch.Tensor], NDArray[np.float32]],
    regions: Callable[..., Regions] | None = None,
    kind: Kind = Kind.FILM,
    doubts: Mapping[str, Sequence[str]] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Explained:
    """Explain labels of one preprocessed input, as `explain_image` does.

    Args:
        classifier: the model.
        explainers: the methods; the first is the default, whose map comes first.
        batch: float32 (1, channels, rows, columns), or (1, channels, slices, rows, columns).
        labels: indices into the card's labels.
        limits: work, time, seed, assessors and thresholds.
        to_source: carries a map on the input's grid, or a coarser one, onto the source's.
        regions: returns the anatomy on the grid of the input, whose axes it is given; without it plausibility is not
            measured.
        kind: of the input, which decides what is measured and by which thresholds it is judged.
        doubts: reasons for caution known of a method before, by its name.
        now: the clock of the emergency brake. Until that is pulled, nothing in the result depends on it.

    Raises:
        PipelineError: `limits` names an assessor that does not exist.
        SettingsError: `limits` has a threshold for a measure that nobody takes.
    """
    assessors = load_assessors(limits.assessors)
    criteria, senseless = _criteria(assessors, limits, kind, anatomy=regions is not None)
    run = Run(
        scene=Scene(classifier=classifier, batch=batch, seed=limits.seed, kind=kind, find_regions=regions),
        assessors=assessors,
        criteria=criteria,
        senseless=senseless,
        budget=Budget(limits.budget_s, limits.brake_s, forward_s(classifier, batch), now),
    )
    run.predict(labels)
    for explainer in sorted(explainers, key=lambda explainer: explainer.cost):
        run.explain(explainer, labels)
    names = [explainer.name for explainer in explainers]
    verdicts = _Verdicts(run, to_source=to_source, doubts=doubts or {})
    attributions = [attribution for name in names for attribution in verdicts.of_method(name)]
    if limits.consensus:
        attributions += [joined for label in labels if (joined := verdicts.of_consensus(label))]
    return Explained(
        attributions=tuple(attributions),
        contradictions=tuple(sentence for label in labels for sentence in verdicts.contradictions(label)),
        unavailable=tuple(run.unavailable[name] for name in names if name in run.unavailable),
    )


class _Verdicts:
    """Turns what a run gathered into attributions."""

    def __init__(
        self,
        run: Run,
        *,
        to_source: Callable[[torch.Tensor], NDArray[np.float32]],
        doubts: Mapping[str, Sequence[str]],
    ) -> None:
        self._run = run
        self._to_source = to_source
        self._doubts = doubts
        self._assessed = {key: self._assess(subject) for key, subject in run.subjects.items()}

    def contradictions(self, label: int) -> tuple[str, ...]:
        """Return sentences on the maps of a label that may be shown and mark different places."""
        finding = self._run.scene.classifier.card.labels[label].name
        return contradictions(self._run.scene, self._passed(label), finding)

    def _passed(self, label: int) -> list[Subject]:
        """Return the maps of a label that may be shown."""
        return [
            subject
            for key, subject in self._run.subjects.items()
            if subject.label == label and self._assessed[key].verdict is not Verdict.NOT_SHOWN
        ]

    def _members(self, label: int) -> list[Subject]:
        """Return the maps that a consensus joins: the reliable ones, or all that passed when those are too few."""
        passed = self._passed(label)
        best = [s for s in passed if self._assessed[s.method, s.label].verdict is Verdict.RELIABLE]
        return best if len(best) >= FEWEST else passed

    def of_method(self, name: str) -> list[Attribution]:
        """Return the attributions of one method, one for each label."""
        found = []
        for (method, _), subject in self._run.subjects.items():
            if method == name and subject.explanation is not None:
                explanation = subject.explanation
                found.append(self._attribution(subject, explanation.parameters, explanation.seconds))
        return found

    def of_consensus(self, label: int) -> Attribution | None:
        """Return the consensus of the maps of one label, measured as they were; None when too few passed."""
        members = self._members(label)
        joined = consensus(members, *self._run.scene.grid)
        if joined is None:
            return None
        begun = time.perf_counter()
        subject = Subject(method=METHOD, title=TITLE, label=label, map=joined.map)
        measures = self._run.assess(subject, comparative=False)
        measures += medians([self._run.measures[member.method, label] for member in members], measures)
        self._run.measures[METHOD, label] = measures
        asked = sum(subject.label == label for subject in self._run.subjects.values())
        passed = len(self._passed(label))
        doubts = [DIVIDED] if contradictions(self._run.scene, members, "") else []
        if 2 * passed < asked:
            doubts.append(MINORITY.format(passed=passed, asked=asked))
        # Nothing is beside it: it is made of what agreement would compare it with.
        comparative = {c.measure for a in self._run.assessors if a.comparative for c in a.criteria}
        self._assessed[METHOD, label] = self._judge(subject, measures, doubts, leave_out=comparative)
        parameters = {"methods": ", ".join(joined.methods)}
        spread = self._to_source(joined.spread)
        return self._attribution(subject, parameters, time.perf_counter() - begun, spread)

    def _attribution(
        self,
        subject: Subject,
        parameters: Mapping[str, str],
        seconds: float,
        spread: NDArray[np.float32] | None = None,
    ) -> Attribution:
        return Attribution(
            method=subject.method,
            title=subject.title,
            finding=self._run.scene.classifier.card.labels[subject.label].name,
            map=self._to_source(subject.map),
            parameters=parameters,
            seconds=seconds,
            assessment=self._assessed[subject.method, subject.label],
            spread=spread,
        )

    def _assess(self, subject: Subject) -> Assessment:
        key = (subject.method, subject.label)
        others = [
            other for other in self._run.subjects.values() if other.label == subject.label and other is not subject
        ]
        measures = [*self._run.measures[key], *self._run.assess(subject, comparative=True, others=others)]
        return self._judge(subject, measures, self._doubts.get(subject.method, ()))

    def _judge(
        self,
        subject: Subject,
        measures: Sequence[Measure],
        doubts: Sequence[str],
        leave_out: Collection[str] = (),
    ) -> Assessment:
        if float(subject.map.max()) <= 0:
            return Assessment(verdict=Verdict.NOT_SHOWN, reasons=(EMPTY,), measures=tuple(measures))
        scene = self._run.scene
        label = scene.classifier.card.labels[subject.label]
        point = label.default_operating_point()
        known = list(doubts)
        if self._run.probabilities[subject.label] < point.threshold:
            known.append(BELOW)
        if (subject.method, subject.label) in self._run.hurried:
            known.append(HURRIED.format(brake=self._run.budget.brake_s))
        asked = [c for c in self._run.criteria if c.target in {"", label.target} and c.measure not in leave_out]
        senseless = (*self._run.senseless, *_unasked_skull(scene.classifier, subject.label, scene.kind))
        return judge(measures, asked, doubts=known, senseless=senseless)
