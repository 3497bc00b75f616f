"""Runs the explainers of a pipeline over one input, and carries their maps onto the source grid."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import UnsupportedMethodError
from service.types import Attribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.pipelines import Explanation as Limits
    from service.types import Image
    from workers.interfaces import Classifier, Explainer


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What came out: in the order in which the pipeline names the methods."""

    attributions: tuple[Attribution, ...]
    contradictions: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()


def explain_image(
    classifier: Classifier,
    explainers: Sequence[Explainer],
    image: Image,
    labels: Sequence[int],
    limits: Limits,
) -> Explained:
    """Explain labels of one image by every method that the time allows, the cheapest first."""
    batch = classifier.preprocess(image)
    begun = time.monotonic()
    found: dict[str, list[Attribution]] = {}
    unavailable: dict[str, str] = {}
    for explainer in sorted(explainers, key=lambda explainer: explainer.cost):
        if found and time.monotonic() - begun > limits.budget_s:
            unavailable[explainer.name] = (
                f"{explainer.title}: the time for explanations ({limits.budget_s:g} s) was over"
            )
            continue
        try:
            explanations = explainer.explain(classifier, batch, labels)
        except UnsupportedMethodError as error:
            unavailable[explainer.name] = f"{explainer.title}: {error}"
            continue
        found[explainer.name] = [
            Attribution(
                method=explainer.name,
                title=explainer.title,
                finding=classifier.card.labels[explanation.label].name,
                map=classifier.to_source(image, explanation.map),
                parameters=explanation.parameters,
                seconds=explanation.seconds,
            )
            for explanation in explanations
        ]
    order = [explainer.name for explainer in explainers]
    return Explained(
        attributions=tuple(a for name in order for a in found.get(name, ())),
        unavailable=tuple(unavailable[name] for name in order if name in unavailable),
    )
