"""Faithfulness: does the probability fall when what the map calls important is taken away, and rise when it comes back?

Deletion and insertion after Petsiuk et al. 2018 (RISE, arXiv:1806.07421), on coarse cells and a few steps, beside
random orders on the same image: a figure without that baseline says more of the image than of the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from service.types import Measure
from workers.assessors.case import CELLS, Criterion, Scene, Subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STEPS = (0.05, 0.12, 0.25, 0.45, 0.7)
"""Shares of the cells taken away or put back; denser where a good map makes the difference."""
DARK = 0.3
"""Quantile of the film's cells that stands for what is not there. Chosen on planted opacities: see docs/trust.md."""
MEANINGFUL = 0.01
"""A smaller advantage over a random order says nothing: on a film that stays positive whatever is covered, every
order is as good."""
ORDERS = 2
"""Random orders of the baseline."""


class Faithfulness:
    """Deletion and insertion AUC of the calibrated probability, and how far their gap exceeds a random order's."""

    name = "faithfulness"
    comparative = False
    criteria: tuple[Criterion, ...] = (
        Criterion(
            measure="faithfulness",
            higher_is_better=True,
            caution=MEANINGFUL,
            hide=-0.1,
            reason="Covering what the map marks changes the model's answer hardly more than covering random places "
            "(difference {value}).",
            chance=MEANINGFUL,
        ),
    )

    def cost(self, subject: Subject) -> int:
        """Return the forwards, the random orders counted in."""
        del subject
        return (2 + ORDERS) * len(STEPS)

    def assess(self, scene: Scene, subject: Subject, others: Sequence[Subject]) -> tuple[Measure, ...]:
        """Return deletion AUC (low is good), insertion AUC (high is good), both in [0, 1], and the gap's excess."""
        del others
        order = np.argsort(-subject.cells.ravel(), kind="stable")
        curves = Curves(scene, subject.label)
        deletion, insertion = curves.of(order)
        if subject.label not in scene.curves:
            scene.curves[subject.label] = curves.random()
        random_deletion, random_insertion = scene.curves[subject.label]
        excess = (insertion - deletion) - (random_insertion - random_deletion)
        return (
            Measure(name="deletion-auc", title="Deletion AUC", value=deletion, baseline=random_deletion),
            Measure(name="insertion-auc", title="Insertion AUC", value=insertion, baseline=random_insertion),
            Measure(name="faithfulness", title="Faithfulness beyond a random order", value=excess, baseline=0.0),
        )


class Curves:
    """Runs deletion and insertion for orders of cells of one input and label."""

    def __init__(self, scene: Scene, label: int) -> None:
        self._scene = scene
        self._label = label
        self._empty = erase(scene.batch)

    def of(self, order: NDArray[np.int64]) -> tuple[float, float]:
        """Return (deletion AUC, insertion AUC) for cells in this order, most important first."""
        kept = [kept_cells(order, 1 - share, last=True) for share in STEPS]
        kept += [kept_cells(order, share, last=False) for share in STEPS]
        scores = self._scores(kept)
        whole, empty = self._ends
        deletion, insertion = scores[: len(STEPS)], scores[len(STEPS) :]
        return _area(whole, deletion, empty), _area(empty, insertion, whole)

    def random(self) -> tuple[float, float]:
        """Return the means of both over random orders.

        What deletion leaves of one order is what insertion shows of its reverse, so one set of images serves both.
        """
        rng = np.random.default_rng(self._scene.seed)
        kept = [
            kept_cells(order, share, last=False)
            for order in (rng.permutation(CELLS * CELLS) for _ in range(ORDERS))
            for share in STEPS
        ]
        scores = self._scores(kept).reshape(ORDERS, len(STEPS)).mean(axis=0)
        whole, empty = self._ends
        insertion = _area(empty, scores, whole)
        # The same points, read from the other end.
        return insertion, insertion

    def _scores(self, kept: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        rows, columns = self._scene.grid
        cells = torch.from_numpy(np.stack(kept))[:, None].to(self._scene.batch)
        masks = F.interpolate(cells, size=(rows, columns), mode="bilinear", align_corners=False)
        films = masks * self._scene.batch + (1 - masks) * self._empty
        everything = torch.cat([films, self._scene.batch, self._empty])
        scores = self._scene.scores(everything, self._label)
        self._ends = float(scores[-2]), float(scores[-1])
        return scores[:-2]


def kept_cells(order: NDArray[np.int64], share: float, *, last: bool) -> NDArray[np.float32]:
    """Return 1 on the first (or last) `share` of the order, shape (`CELLS`, `CELLS`)."""
    count = round(share * len(order))
    kept = np.zeros(len(order), dtype=np.float32)
    kept[order[len(order) - count :] if last else order[:count]] = 1.0
    return kept.reshape(CELLS, CELLS)


def erase(batch: torch.Tensor) -> torch.Tensor:
    """Return the input with everything gone that could be a finding: nothing is brighter than the darker parts.

    A blur leaves an opacity's brightness in place, and a mean is brighter than a lung: on chest films both read as
    disease themselves. Darkness takes an opacity away; of findings that are dark (a pneumothorax) it tells nothing.
    """
    coarse = F.adaptive_avg_pool2d(batch, (2 * CELLS, 2 * CELLS)).flatten(2)
    dark = coarse.quantile(DARK, dim=2)[..., None, None]
    return torch.minimum(batch, dark)


def _area(first: float, scores: NDArray[np.float64], last: float) -> float:
    shares = np.array([0.0, *STEPS, 1.0])
    return float(np.trapezoid(np.array([first, *scores, last]), shares))
