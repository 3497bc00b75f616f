"""What every assessor works on: one input, one explanation of it, and how figures become a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
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
"""Cells along each axis of the grid on which maps are ordered and compared: as fine as a class activation map."""
TOUCHED = 0.05
"""Share of a cell from which it counts as one of the patient's."""
FEWEST_CELLS = 20
"""Of the patient; with fewer, as in a slice above the vertex, all cells are ordered."""


class Kind(StrEnum):
    """What is explained. Thresholds hold for the kinds that they were measured on."""

    FILM = "film"
    SLICE = "slice"
    """Of a series that a two-dimensional network reads slice by slice."""
    VOLUME = "volume"


EVERY_KIND = frozenset(Kind)
FILMS = frozenset({Kind.FILM})
SERIES = frozenset({Kind.SLICE, Kind.VOLUME})


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
    kinds: frozenset[Kind] = EVERY_KIND
    """What the numbers hold for; of other kinds the figure is not asked."""
    target: str = ""
    """`Label.target` of the findings that the figure is taken for; empty: of all."""
    senseless: str = ""
    """Why the figure is not taken of other kinds, or where `required` is false, as a sentence for the report."""


@dataclass(kw_only=True, eq=False)
class Scene:
    """One preprocessed input, and what is computed of it once for all methods and labels."""

    classifier: Classifier
    batch: torch.Tensor
    """Float32 (1, channels, rows, columns) or (1, channels, slices, rows, columns), on the classifier's device."""
    seed: int
    kind: Kind = Kind.FILM
    find_regions: Callable[..., Regions] | None = None
    """Returns the regions on the grid whose axes it is given; None where nothing is known of the anatomy."""
    random_orders: dict[int, RandomOrders] = field(default_factory=dict)
    """What random orders reach, by label; filled by the first method that is measured."""

    @cached_property
    def regions(self) -> Regions | None:
        """Return the regions on the input's grid."""
        return self.find_regions(*self.grid) if self.find_regions else None

    @property
    def grid(self) -> tuple[int, ...]:
        """Return (rows, columns) of the input, or (slices, rows, columns)."""
        return tuple(self.batch.shape[2:])

    @cached_property
    def patient(self) -> NDArray[np.bool_] | None:
        """Return the patient on the input's grid, where what lies around takes much of it: in a slice or volume."""
        if self.kind not in SERIES or self.regions is None or not self.regions.body.any():
            return None
        return self.regions.body

    @cached_property
    def patient_cells(self) -> NDArray[np.bool_]:
        """Return the cells that are ordered and compared: the patient's in a slice or volume, else all.

        Air has no order worth a test: random places that fall into it would make every map look better than chance.
        """
        every = np.ones((CELLS,) * len(self.grid), dtype=bool)
        if self.patient is None:
            return every
        cells = on_grid(torch.from_numpy(self.patient.astype(np.float32)), *every.shape) > TOUCHED
        return cells if int(cells.sum()) >= FEWEST_CELLS else every

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
    """Float32 (rows, columns) or (slices, rows, columns), signed, on the explainer's own grid."""
    explainer: Explainer | None = None
    """To explain again after a small change of the input; None for a map that no single method made."""
    explanation: Explanation | None = None

    def on_grid(self, *axes: int) -> NDArray[np.float32]:
        """Return the signed map on another grid over the same extent."""
        return on_grid(self.map, *axes)

    @cached_property
    def cells(self) -> NDArray[np.float32]:
        """Return the signed map as means of `CELLS` cells along each axis."""
        return on_grid(self.map, *(CELLS,) * self.map.ndim)

    @cached_property
    def drawn_cells(self) -> NDArray[np.float32]:
        """Return the same of the map's positive part, which is what is drawn.

        A small lesion in a slice or volume is less than a cell; what lies around it must not cancel it.
        """
        return on_grid(self.map.clamp_min(0), *(CELLS,) * self.map.ndim)


class Assessor(Protocol):
    """One way to measure an explanation, found by entry point group `pellucid.assessors`."""

    name: str
    criteria: tuple[Criterion, ...]
    comparative: bool
    """True when it needs the maps of the other methods, and so runs after all of them."""

    def cost(self, scene: Scene, subject: Subject) -> int:
        """Return how many forward passes it takes, roughly."""

    def assess(self, scene: Scene, subject: Subject, others: Sequence[Subject]) -> tuple[Measure, ...]:
        """Measure one explanation; `others` is empty unless `comparative`. No measure: nothing could be said."""


def on_grid(values: torch.Tensor, *axes: int) -> NDArray[np.float32]:
    """Resize a map of two or three axes: means where every axis shrinks, linear between places where one grows.

    A volume that shrinks along some of its axes is first averaged along those: nothing of it is stepped over.
    """
    source = values.detach().to("cpu", torch.float32)[None, None]
    if values.ndim == 2:  # noqa: PLR2004 - rows and columns
        shrinks = all(length > size for length, size in zip(values.shape, axes, strict=True))
        return _array(averaged(source, axes) if shrinks else _linear(source, axes, "bilinear"))
    smaller = tuple(min(length, size) for length, size in zip(values.shape, axes, strict=True))
    return _array(_linear(averaged(source, smaller), axes, "trilinear"))


def averaged(batch: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """Return means of (batch, channels, ...) on a coarser grid of two or three axes."""
    if len(axes) == 2:  # noqa: PLR2004 - rows and columns
        return F.adaptive_avg_pool2d(batch, (axes[0], axes[1]))
    return F.adaptive_avg_pool3d(batch, (axes[0], axes[1], axes[2]))


def _linear(source: torch.Tensor, axes: tuple[int, ...], mode: str) -> torch.Tensor:
    return F.interpolate(source, size=axes, mode=mode, align_corners=False)


def _array(resized: torch.Tensor) -> NDArray[np.float32]:
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
