"""Faithfulness: does the answer fall when what the map calls important is taken away, and rise when it comes back?

Deletion and insertion after Petsiuk et al. 2018 (RISE, arXiv:1806.07421), on coarse cells and a few steps. A figure
alone says more of the image than of the map, so the map is held against orders drawn at random on the same image. They
are drawn as regions, not as scattered cells: a map marks regions, and a region that is covered in one piece moves a
model more than as many scattered cells do, wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from scipy.special import logit, stdtr
from torch.nn import functional as F

from service.results import Measure
from workers.assessors.case import CELLS, Criterion, Scene, Subject, averaged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STEPS = (0.05, 0.12, 0.25, 0.5)
"""Shares of the cells taken away or put back; denser where a good map makes the difference."""
DARK = 0.3
"""Quantile of the film's, or the patient's, cells that stands for what is not there. Chosen on planted opacities: see
docs/trust.md."""
HALF = 0.5
ORDERS = 8
"""Random orders on one image."""
WIDTH = 1.5
"""Deviation, in cells, of the filter that makes regions of noise: as wide as the spots of a class activation map."""
LEAST_SWING = 0.5
"""Log-odds by which the answer must fall when everything is taken away."""
PLACES = 2**22
"""Of inputs that are covered at once: 80 films of 224 x 224, one large volume."""
CERTAIN = 1e-12
"""Probabilities nearer to 0 or 1 than this have the log-odds of this."""


class Faithfulness:
    """Deletion and insertion AUC of the calibrated probability, and how likely a random order does as well.

    The comparison is made in log-odds: where a film with widespread disease keeps its probability near 1 whatever is
    covered, they still tell how far it moved.
    """

    name = "faithfulness"
    comparative = False
    criteria: tuple[Criterion, ...] = (
        Criterion(
            measure="faithfulness-chance",
            higher_is_better=False,
            caution=0.15,
            hide=0.5,
            reason="Covering regions drawn at random would change the model's answer as much as covering what the map "
            "marks, with a probability of {value}.",
            unmeasured="It could not be tested whether the model used what the map marks.",
        ),
    )

    def cost(self, scene: Scene, subject: Subject) -> int:
        """Return the map's own forwards, and the random orders' where no method before has had them scored."""
        random = 0 if subject.label in scene.random_orders else 2 * len(STEPS) * ORDERS
        return 2 * len(STEPS) + 2 + random

    def assess(self, scene: Scene, subject: Subject, others: Sequence[Subject]) -> tuple[Measure, ...]:
        """Return deletion AUC (low is good), insertion AUC (high is good), their gap in log-odds, and its chance.

        Without the latter two where taking everything away lowers the answer by less than `LEAST_SWING`: then no map
        could be told from another.

        The gap is a share of what taking everything away changes; its baseline is what one random order in twenty
        exceeds. The chance comes from Student's distribution with `ORDERS` degrees of freedom: an order and its
        reverse have opposite gaps, so the mean of random ones is 0.
        """
        del others
        curves = Curves(scene, subject.label)
        if subject.label not in scene.random_orders:
            scene.random_orders[subject.label] = curves.random()
        found, random = curves.of(curves.order(subject.cells)), scene.random_orders[subject.label]
        areas = (
            Measure(name="deletion-auc", title="Deletion AUC", value=found.deletion, baseline=random.deletion),
            Measure(name="insertion-auc", title="Insertion AUC", value=found.insertion, baseline=random.insertion),
        )
        if curves.swing < LEAST_SWING:
            return areas
        return (
            *areas,
            Measure(
                name="faithfulness",
                title="Faithfulness (insertion less deletion, in log-odds)",
                value=found.gap / curves.swing,
                baseline=LIMIT * random.spread / curves.swing,
            ),
            Measure(
                name="faithfulness-chance",
                title="Probability that random regions do as well",
                value=chance(found.gap, random.spread),
                baseline=0.5,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Areas:
    """Areas under the curves of one order of cells."""

    deletion: float
    """Of the probability, in [0, 1]."""
    insertion: float
    gap: float
    """Insertion less deletion, of the log-odds."""


@dataclass(frozen=True, kw_only=True)
class RandomOrders:
    """What orders drawn at random reach on one image."""

    deletion: float
    """Mean."""
    insertion: float
    spread: float
    """Root of the mean square of their gaps, in log-odds."""


LIMIT = 1.86
"""Student's 95 % limit, one-sided, with `ORDERS` degrees of freedom."""


def chance(gap: float, spread: float) -> float:
    """Return the probability that a random order's gap is at least this one; 0.5 where nothing moves the answer."""
    return float(stdtr(ORDERS, -gap / spread)) if spread > 0 else 0.5


def order_of(cells: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the cells, most important first."""
    return np.argsort(-cells.ravel(), kind="stable")


class Curves:
    """Runs deletion and insertion for orders of cells of one input and label.

    In a slice or volume only the patient's cells are ordered; what lies around stays as it is.
    """

    def __init__(self, scene: Scene, label: int) -> None:
        self._scene = scene
        self._label = label
        self._cells = np.flatnonzero(scene.patient_cells)
        self._empty = erase(scene.batch, scene.patient)
        self._whole, self._nothing = scene.scores(torch.cat([scene.batch, self._empty]), label)

    @property
    def swing(self) -> float:
        """By how much taking everything away lowers the log-odds."""
        return float(_log_odds(self._whole) - _log_odds(self._nothing))

    def order(self, cells: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the cells that are ordered, the most important of a map first."""
        return self._cells[order_of(cells.ravel()[self._cells])]

    def of(self, order: NDArray[np.int64]) -> Areas:
        """Return the areas for cells in this order, most important first."""
        return self._areas([order])[0]

    def random(self) -> RandomOrders:
        """Return what `ORDERS` orders of random regions reach."""
        rng = np.random.default_rng(self._scene.seed)
        axes = len(self._scene.grid)
        noise = rng.standard_normal((ORDERS, *(CELLS,) * axes))
        fields = ndimage.gaussian_filter(noise, (0.0, *(WIDTH,) * axes), mode="wrap")
        found = self._areas([self.order(field) for field in fields.astype(np.float32)])
        return RandomOrders(
            deletion=float(np.mean([areas.deletion for areas in found])),
            insertion=float(np.mean([areas.insertion for areas in found])),
            spread=float(np.sqrt(np.mean([areas.gap**2 for areas in found]))),
        )

    def _areas(self, orders: Sequence[NDArray[np.int64]]) -> list[Areas]:
        axes = (CELLS,) * len(self._scene.grid)
        kept = [
            kept_cells(order, share, last=last, axes=axes)
            for order in orders
            for last, shares in ((True, [1 - step for step in STEPS]), (False, STEPS))
            for share in shares
        ]
        scores = self._scores(kept).reshape(len(orders), 2, len(STEPS))
        return [self._area(deletion, insertion) for deletion, insertion in scores]

    def _area(self, deletion: NDArray[np.float64], insertion: NDArray[np.float64]) -> Areas:
        down, up = [self._whole, *deletion, self._nothing], [self._nothing, *insertion, self._whole]
        return Areas(
            deletion=_under(np.array(down)),
            insertion=_under(np.array(up)),
            gap=_under(_log_odds(np.array(up)) - _log_odds(np.array(down))),
        )

    def _scores(self, kept: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        size = max(1, PLACES // prod(self._scene.grid))
        chunks = [kept[start : start + size] for start in range(0, len(kept), size)]
        return np.concatenate([self._scene.scores(self._covered(chunk), self._label) for chunk in chunks])

    def _covered(self, kept: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """Return the input with all but the kept cells erased, one for each of `kept`."""
        cells = torch.from_numpy(np.stack(kept))[:, None].to(self._scene.batch)
        mode = "bilinear" if len(self._scene.grid) == 2 else "trilinear"  # noqa: PLR2004 - rows and columns
        masks = F.interpolate(cells, size=self._scene.grid, mode=mode, align_corners=False)
        return torch.lerp(self._empty, self._scene.batch, masks)


def kept_cells(order: NDArray[np.int64], share: float, *, last: bool, axes: tuple[int, ...]) -> NDArray[np.float32]:
    """Return 1 on the first (or last) `share` of the order and on what is not ordered, of shape `axes`."""
    count = round(share * len(order))
    kept = np.ones(prod(axes), dtype=np.float32)
    kept[order] = 0.0
    kept[order[len(order) - count :] if last else order[:count]] = 1.0
    return kept.reshape(axes)


def erase(batch: torch.Tensor, patient: NDArray[np.bool_] | None = None) -> torch.Tensor:
    """Return the input with everything gone that could be a finding: nothing is brighter than the darker parts.

    A blur leaves an opacity's brightness in place, and a mean is brighter than a lung: on chest films both read as
    disease themselves. Darkness takes an opacity away; of findings that are dark (a pneumothorax) it tells nothing.
    Where the patient's place on the input's grid is known, the darker parts are the patient's: a brain without its
    bleed is grey, not a hole of air.
    """
    coarse = _coarse(batch)
    if patient is not None:
        inside = _coarse(torch.from_numpy(patient).to(batch)[None, None])[0, 0] >= HALF
        coarse = coarse[..., inside] if bool(inside.any()) else coarse
    dark = coarse.quantile(DARK, dim=2)
    return torch.minimum(batch, dark.reshape(*dark.shape, *[1] * (batch.ndim - 2)))


def _coarse(batch: torch.Tensor) -> torch.Tensor:
    """Return the means of a coarse grid, (batch, channels, cells)."""
    cells = tuple(min(2 * CELLS, side) for side in batch.shape[2:])
    return averaged(batch, cells).flatten(2)


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = logit(np.clip(probabilities, CERTAIN, 1 - CERTAIN))
    return found


def _under(scores: NDArray[np.float64]) -> float:
    return float(np.trapezoid(scores, np.array([0.0, *STEPS, 1.0])))
