"""Explains one input by one method after the other, within its budget, and keeps maps, measures and refusals."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from service.errors import PellucidError, UnsupportedMethodError
from workers.assessors.budget import memory_errors
from workers.assessors.case import Subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.results import Measure
    from workers.assessors.budget import Budget
    from workers.assessors.case import Assessor, Criterion, Scene
    from workers.interfaces import Explainer, Explanation

log = logging.getLogger(__name__)

TOO_DEAR = "the work allowed for explanations ({budget:g} s of the reference machine) would not have sufficed"
TOO_SLOW = "the machine was too slow (explaining took more than {brake:g} s); a repeat may give it"


@dataclass(kw_only=True)
class Run:
    """Everything explained and measured so far of one input."""

    scene: Scene
    assessors: Sequence[Assessor]
    criteria: Sequence[Criterion]
    budget: Budget
    senseless: tuple[str, ...] = ()
    """Sentences on figures that are not asked of such an input."""
    subjects: dict[tuple[str, int], Subject] = field(default_factory=dict)
    measures: dict[tuple[str, int], list[Measure]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    probabilities: dict[int, float] = field(default_factory=dict)
    hurried: set[tuple[str, int]] = field(default_factory=set)
    """Of whose maps the brake left out measures."""

    def predict(self, labels: Sequence[int]) -> None:
        """Take the probabilities."""
        answers = self.scene.classifier.probabilities(self.scene.classifier.logits(self.scene.batch))[0]
        self.budget.spend(1)
        self.probabilities = {label: float(answers[label]) for label in labels}

    def explain(self, explainer: Explainer, labels: Sequence[int]) -> None:
        """Explain and measure by one method, or note why not."""
        passes = explainer.cost * len(labels)
        if self.subjects and not self.budget.allows(passes):
            self._refuse(explainer, TOO_DEAR.format(budget=self.budget.budget_s))
            return
        if self.subjects and self.budget.braked:
            self._refuse(explainer, TOO_SLOW.format(brake=self.budget.brake_s))
            return
        self.budget.spend(passes)
        try:
            with memory_errors():
                explanations = explainer.explain(self.scene.classifier, self.scene.batch, labels)
        except PellucidError as error:
            self._refuse(explainer, str(error))
            return
        except Exception as error:  # noqa: BLE001 - a stranger's network may raise anything under hooks and gradients
            name = self.scene.classifier.card.name
            log.error("%s fails with model '%s': %s", explainer.name, name, type(error).__name__)  # noqa: TRY400
            self._refuse(explainer, f"it fails with this model ({type(error).__name__})")
            return
        if not all(bool(torch.isfinite(explanation.map).all()) for explanation in explanations):
            self._refuse(explainer, "its map holds values that are not finite")
            return
        for explanation in explanations:
            self._keep(explainer, explanation)

    def _refuse(self, explainer: Explainer, reason: str) -> None:
        self.unavailable[explainer.name] = f"{explainer.title}: {reason}"

    def _keep(self, explainer: Explainer, explanation: Explanation) -> None:
        subject = Subject(
            method=explainer.name,
            title=explainer.title,
            label=explanation.label,
            map=explanation.map,
            explainer=explainer,
            explanation=explanation,
        )
        key = (explainer.name, explanation.label)
        self.subjects[key] = subject
        self.measures[key] = [*self.assess(subject, comparative=False), *explanation.measures]

    def assess(self, subject: Subject, *, comparative: bool, others: Sequence[Subject] = ()) -> list[Measure]:
        """Take the measures that the work, the time and the memory allow."""
        found: list[Measure] = []
        for assessor in self.assessors:
            passes = assessor.cost(self.scene, subject)
            if assessor.comparative is not comparative or not self.budget.allows(passes):
                continue
            if passes and self.budget.braked:
                self.hurried.add((subject.method, subject.label))
                continue
            self.budget.spend(passes)
            try:
                with memory_errors():
                    found += assessor.assess(self.scene, subject, others)
            except UnsupportedMethodError:
                # A figure that could not be taken is missing, and a missing figure is a reason for caution.
                continue
        return found
