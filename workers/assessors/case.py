"""What every assessor works on: one input, one explanation of it, and how figures become a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from service.results import Measure
    from workers.assessors.faithfulness import RandomOrders
    from workers.assessors.regions import Regions
    from workers.interfaces import Classifier, Explainer, Explanation

CELLS = 14
"""Cells along each side of the grid on which maps are ordered and compared: as fine as a class activation map."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """How one measure bears on the verdict. The numbers are defaults; a pipeline may set others."""

    measure: str
    """`Measure.name`."""
    higher_is_better: bool
    caution: float
    """Beyond it the verdict is `use with caution` at best."""
    hide: float | None
    """Beyond it the verdict is `not shown`; None: never for this measure alone."""
    reason: str
    """For a radiologist; `{value}` and `{baseline}` are replaced by the figures in the measure's unit."""
    chance: float | None = None
    """What a map that knows nothing reaches. A proposed threshold for caution is no laxer than that where higher is
    better, and no stricter where lower is better. None: chance depends on the image."""
    of_anatomy: bool = False
    """Whether the figure exists only where the anatomy is known; elsewhere it is not missed."""
    required: bool = True
    """Whether the verdict cannot be `reliable` while the figure is missing."""
    unmeasured: str = ""
    """The reason then, for a radiologist; empty: the measure's name among those not measured."""


@dataclass(kw_only=True, eq=False)
class Scene:
    """One preprocessed input, and what is computed of it once for all methods and labels."""

    classifier: Classifier
    batch: torch.Tensor
    """Float32 (1, channels, rows, columns), on the classifier's device."""
    seed: int
    find_regions: Callable[[int, int], Regions] | None = None
    """Returns the regions on a grid (rows, columns); None where nothing is known of the anatomy."""
    random_orders: dict[int, RandomOrders] = field(default_factory=dict)
    """What random orders reach, by label; filled by the first method that is measured."""

    @cached_property
    def regions(self) -> Regions | None:
        """Return the regions on the input's grid."""
        return self.find_regions(*self.grid) if self.find_regions else None

    @property
    def grid(self) -> tuple[int, int]:
        """Return (rows, columns) of the input."""
        return self.batch.shape[-2], self.batch.shape[-1]

    def scores(self, batch: torch.Tensor, label: int) -> NDArray[np.float64]:
        """Return the calibrated probabilities of one label, shape (batch,)."""
        result: NDArray[np.float64] = self.classifier.probabilities(self.classifier.logits(batch))[:, label]
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One explanation under assessment."""

    method: str
    title: str
    label: int
    map: torch.Tensor
    """Float32 (rows, columns), signed, on the explainer's own grid."""
    explainer: Explainer | None = None
    """To explain again after a small change of the input; None for a map that no single method made."""
    explanation: Explanation | None = None

    def on_grid(self, rows: int, columns: int) -> NDArray[np.float32]:
        """Return the signed map on another grid over the same extent."""
        return on_grid(self.map, rows, columns)

    @cached_property
    def cells(self) -> NDArray[np.float32]:
        """Return the signed map as means of `CELLS` x `CELLS` cells."""
        return on_grid(self.map, CELLS, CELLS)


class Assessor(Protocol):
    """One way to measure an explanation, found by entry point group `pellucid.assessors`."""

    name: str
    criteria: tuple[Criterion, ...]
    comparative: bool
    """True when it needs the maps of the other methods, and so runs after all of them."""

    def cost(self, subject: Subject) -> int:
        """Return how many forward passes it takes, roughly."""

    def assess(self, scene: Scene, subject: Subject, others: Sequence[Subject]) -> tuple[Measure, ...]:
        """Measure one explanation; `others` is empty unless `comparative`. No measure: nothing could be said."""


def on_grid(values: torch.Tensor, rows: int, columns: int) -> NDArray[np.float32]:
    """Resize a map (i, j): means where it shrinks, bilinear where it grows."""
    film = values.detach().to("cpu", torch.float32)[None, None]
    shrinks = values.shape[-2] > rows and values.shape[-1] > columns
    resized = (
        F.adaptive_avg_pool2d(film, (rows, columns))
        if shrinks
        else F.interpolate(film, size=(rows, columns), mode="bilinear", align_corners=False)
    )
    return np.ascontiguousarray(resized[0, 0].numpy())


def correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return Pearson's correlation of the positive parts, which are what is drawn; 0 where one is constant."""
    a = np.maximum(first, 0).ravel().astype(np.float64)
    b = np.maximum(second, 0).ravel().astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / length if length > 0 else 0.0


def rank_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return Spearman's correlation of the signed maps, ties shared; 0 where one is constant."""
    from scipy.stats import rankdata  # noqa: PLC0415 - scipy.stats takes half a second to import

    a, b = (rankdata(values.ravel()) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / length if length > 0 else 0.0
