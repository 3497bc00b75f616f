"""Sets the thresholds of verdicts: where do maps known to be good end, and maps known to be bad begin?

Good maps are those of the model under test whose maximum lies in an opacity whose place is known. Bad ones are maps
drawn by chance for the same images, and the maps of a model that reads a burned-in label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from workers.assessors.case import Scene, Subject
from workers.assessors.faithfulness import Faithfulness
from workers.assessors.plausibility import Plausibility
from workers.assessors.regions import find_regions
from workers.assessors.shortcut import as_batch, lettered_phantom
from workers.assessors.stability import Stability
from workers.evaluation.localisation import place
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from workers.assessors.case import Assessor, Criterion
    from workers.evaluation.planted import KnownImage
    from workers.interfaces import Classifier, Explainer

ASSESSORS: tuple[Assessor, ...] = (Faithfulness(), Stability(), Plausibility())
TAIL = 0.05
"""Share of the good maps that a threshold for caution may cost, before it moves towards the bad ones."""
WAYS = (0.25, 0.5)
"""How far from there to the median of the bad maps caution and hiding begin."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
LETTERED = 224
"""Rows and columns of the lettered phantoms."""

Figures = dict[str, float]


class Chance:
    """Smooth spots at places that only the input's noise decides: a map of nothing."""

    name = "chance"
    title = "Chance"
    cost = 1

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Return one map for all labels; another input, or the same one changed, gives another map."""
        del classifier
        seed = int(batch.double().sum().abs().item() * 1e6) % 2**31
        generator = torch.Generator().manual_seed(seed)
        if batch.ndim == 4:  # noqa: PLR2004 - a film or slice
            noise = torch.randn((1, 1, 5, 5), generator=generator)
            drawn = F.interpolate(noise, size=(14, 14), mode="bicubic", align_corners=False)[0, 0]
        else:
            noise = torch.randn((1, 1, 5, 5, 5), generator=generator)
            drawn = F.interpolate(noise, size=(14, 14, 14), mode="trilinear", align_corners=False)[0, 0]
        return [Explanation(label=label, map=drawn, parameters={}, seconds=0.0) for label in labels]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Figures of maps by what is known of them; each a list with one entry per map."""

    good: dict[str, list[Figures]]
    """By the set of images that they come from."""
    chance: list[Figures]
    """Maps drawn by chance for the same images: what faithfulness and stability must catch."""
    label_reader: list[Figures]
    """Maps of the model that reads a label, or a tube beside a head: what plausibility must catch."""
    missed: int
    """Images with a lesion that the model called, whose map does not point to it: neither good nor bad."""
    negative: int
    """Images with a lesion that the model did not call."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Thresholds for one measure, with what they cost and what they catch."""

    measure: str
    caution: float
    hide: float
    good_flagged: float
    """Share of the good maps that would not be `reliable` for this measure alone."""
    good_hidden: float
    bad_flagged: float
    bad_hidden: float
    shipped: tuple[float, float, float, float]
    """The same four shares with the criterion's own numbers."""
    good_quantiles: tuple[float, ...]
    """At `QUANTILES`, of all good maps."""
    bad_quantiles: tuple[float, ...]


def gather(
    classifier: Classifier,
    explainer: Explainer,
    sets: Mapping[str, Iterable[KnownImage]],
    shortcut: Classifier,
    *,
    lettered: int,
    advance: Callable[[int], None],
) -> Gathered:
    """Measure good and bad maps of known images, and the label reader's of `lettered` phantoms."""
    good: dict[str, list[Figures]] = {name: [] for name in sets}
    chance: list[Figures] = []
    label_reader: list[Figures] = []
    missed = negative = 0
    point = classifier.card.labels[0].default_operating_point()
    for name, images in sets.items():
        for image in images:
            if not image.mask.any():
                continue
            advance(1)
            scene = _scene(classifier, (image.pixels / 255).astype(np.float32))
            if float(scene.scores(scene.batch, 0)[0]) < point.threshold:
                negative += 1
                continue
            chance.append(figures(scene, Chance()))
            (explanation,) = explainer.explain(classifier, scene.batch, [0])
            if place(_fine(explanation.map, image.mask.shape), image.mask).points:
                good[name].append(figures(scene, explainer))
            else:
                missed += 1
    for number in range(lettered):
        scene = _scene(shortcut, lettered_phantom(10_000 + number, LETTERED, opacities=number % 2))
        label_reader.append(figures(scene, explainer, (Plausibility(),)))
        advance(1)
    return Gathered(good=good, chance=chance, label_reader=label_reader, missed=missed, negative=negative)


def figures(scene: Scene, explainer: Explainer, assessors: Sequence[Assessor] = ASSESSORS) -> Figures:
    """Return every figure of one method's map of the first label."""
    (explanation,) = explainer.explain(scene.classifier, scene.batch, [0])
    subject = Subject(
        method=explainer.name,
        title=explainer.title,
        label=0,
        map=explanation.map,
        explainer=explainer,
        explanation=explanation,
    )
    return {m.name: m.value for assessor in assessors for m in assessor.assess(scene, subject, ())}


def propose(gathered: Gathered, criteria: Sequence[Criterion]) -> list[Proposal]:
    """Return thresholds for each criterion of which there are good and bad figures."""
    found = []
    for criterion in criteria:
        sign = 1.0 if criterion.higher_is_better else -1.0
        sets = [_column(rows, criterion.measure) * sign for rows in gathered.good.values()]
        sets = [values for values in sets if len(values)]
        known = gathered.label_reader if criterion.measure.startswith("energy-") else gathered.chance
        bad = _column(known, criterion.measure) * sign
        if not sets or np.ptp(np.concatenate([*sets, bad])) == 0 or not len(bad):
            continue  # nothing is known, or nothing tells good maps from bad ones
        # The set on which good maps are worst decides: real films vary more than phantoms.
        start = min(float(np.quantile(values, TAIL)) for values in sets)
        way = min(float(np.median(bad)) - start, 0.0)
        caution, hide = (start + way * share for share in WAYS)
        if criterion.chance is not None:
            caution = max(caution, criterion.chance) if criterion.higher_is_better else min(caution, -criterion.chance)
            hide = min(hide, caution) if criterion.higher_is_better else min(hide, 2 * caution)
        good = np.concatenate(sets)
        found.append(
            Proposal(
                measure=criterion.measure,
                caution=round(caution * sign, 3),
                hide=round(hide * sign, 3),
                good_flagged=float(np.mean(good < caution)),
                good_hidden=float(np.mean(good < hide)),
                bad_flagged=float(np.mean(bad < caution)),
                bad_hidden=float(np.mean(bad < hide)),
                shipped=_shares(good, bad, _limits(criterion, sign)),
                good_quantiles=_quantiles(good * sign),
                bad_quantiles=_quantiles(bad * sign),
            )
        )
    return found


def _limits(criterion: Criterion, sign: float) -> tuple[float, float]:
    return sign * criterion.caution, -np.inf if criterion.hide is None else sign * criterion.hide


def _shares(
    good: NDArray[np.float64], bad: NDArray[np.float64], limits: Sequence[float]
) -> tuple[float, float, float, float]:
    shares = [float(np.mean(values < limit)) for values in (good, bad) for limit in limits]
    return shares[0], shares[1], shares[2], shares[3]


def flagged(row: Figures, criteria: Sequence[Criterion]) -> bool:
    """Tell whether any of the figures is beyond its threshold for caution."""
    return any(
        row[c.measure] < c.caution if c.higher_is_better else row[c.measure] > c.caution
        for c in criteria
        if c.measure in row
    )


def _scene(classifier: Classifier, grey: NDArray[np.float32]) -> Scene:
    expected = classifier.card.input
    return Scene(
        classifier=classifier,
        batch=as_batch(grey, expected.rows, expected.columns).to(classifier.device),
        seed=0,
        find_regions=lambda rows, columns: find_regions(grey, rows, columns),
    )


def plausibility_of(classifier: Classifier, explainer: Explainer, grey: NDArray[np.float32]) -> Figures:
    """Return the plausibility of one method's map of one film, float32 (rows, columns) in [0, 1]."""
    return figures(_scene(classifier, grey), explainer, (Plausibility(),))


def _column(rows: Sequence[Figures], name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows if name in row], dtype=np.float64)


def _quantiles(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in np.quantile(values, QUANTILES))


def _fine(values: torch.Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    film = F.interpolate(values[None, None].float(), size=shape[:2], mode="bilinear", align_corners=False)
    fine: NDArray[np.float32] = film[0, 0].numpy()
    return fine
