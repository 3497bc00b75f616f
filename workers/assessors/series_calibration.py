"""Gathers good and bad maps of series for the thresholds, as `calibration` does of radiographs.

Good maps are those of the model under test whose maximum lies in a lesion planted into a phantom head. Bad ones are
maps drawn by chance for the same inputs, and the maps of a model that reads a tube beside the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.assessors.calibration import Chance, Figures, Gathered, figures
from workers.assessors.case import Kind, Scene
from workers.assessors.plausibility import Plausibility
from workers.assessors.tube import as_series, head
from workers.evaluation.localisation import place
from workers.series_reading import Part, Parts, find_in_series, reading_of, slices_to_explain

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from service.images import Series
    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier

FIRST_HEAD = 6_000_000
"""Seed of the first phantom; no training run and no other benchmark draws from here on."""


def modality_of(classifier: PackagedClassifier) -> str:
    """Return which phantom heads the model reads: "CT" or "MR"."""
    return "CT" if "CT" in classifier.card.eligibility.modalities else "MR"


def kind_of(classifier: PackagedClassifier) -> Kind:
    """Return what of a series the model is given at once."""
    return Kind.VOLUME if reading_of(classifier).reading == "volume" else Kind.SLICE


def gather_heads(
    classifier: PackagedClassifier,
    explainer: Explainer,
    shortcut: PackagedClassifier,
    *,
    heads: int,
    tubes: int,
    advance: Callable[[int], None],
) -> Gathered:
    """Measure good and bad maps of `heads` phantoms with a lesion, and the tube reader's of `tubes` with a tube."""
    modality = modality_of(classifier)
    good: list[Figures] = []
    chance: list[Figures] = []
    label_reader: list[Figures] = []
    missed = negative = 0
    for seed in range(FIRST_HEAD, FIRST_HEAD + heads):
        phantom = head(modality, seed, sick=True)
        parts = _called(classifier, as_series(phantom, modality))
        negative += not parts
        for index, part in parts:
            lesion = phantom.lesion if index is None else phantom.lesion[index]
            scene = _scene(part)
            chance.append(figures(scene, Chance()))
            if _points(explainer, part, lesion):
                good.append(figures(scene, explainer))
            else:
                missed += 1
        advance(1)
    for seed in range(FIRST_HEAD + heads, FIRST_HEAD + heads + tubes):
        series = as_series(head(modality, seed, sick=seed % 2 == 0, tube=True), modality)
        label_reader.append(figures(_scene(_middle(shortcut, series)), explainer, (Plausibility(),)))
        advance(1)
    return Gathered(
        good={"phantom heads": good}, chance=chance, label_reader=label_reader, missed=missed, negative=negative
    )


def _called(classifier: PackagedClassifier, series: Series) -> list[tuple[int | None, Part]]:
    """Return what the service would explain of a series, with the slice's index; nothing where it is not called."""
    (finding, *_) = find_in_series(classifier, series)
    if not finding.positive:
        return []
    parts = Parts(classifier, series)
    if kind_of(classifier) is Kind.VOLUME:
        return [(None, parts.volume())]
    chosen = slices_to_explain(finding, reading_of(classifier).explained_slices)
    return [(index, parts.slice(index)) for index in chosen]


def _middle(classifier: PackagedClassifier, series: Series) -> Part:
    parts = Parts(classifier, series)
    return parts.volume() if kind_of(classifier) is Kind.VOLUME else parts.slice(len(series.slices) // 2)


def _scene(part: Part) -> Scene:
    return Scene(classifier=part.classifier, batch=part.batch, seed=0, kind=part.kind, find_regions=part.regions)


def _points(explainer: Explainer, part: Part, lesion: NDArray[np.bool_]) -> bool:
    (explanation,) = explainer.explain(part.classifier, part.batch, [0])
    return place(part.to_source(explanation.map), lesion).points
