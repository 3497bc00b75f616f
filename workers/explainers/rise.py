"""RISE: how the logit varies with each place's visibility under soft random masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from service.errors import UnsupportedMethodError
from workers.explainers.bounds import whole
from workers.explainers.hiding import HiddenImage
from workers.explainers.perturbation import Clock, Sampling, until_stable
from workers.explainers.sampling import SPARE, Estimate
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.explainers.sampling import Floats
    from workers.interfaces import Classifier

LATTICE = 4
"""Places per cell of the masks, along each axis, at which values are kept; masks are no finer than cells."""
LEAST_VARIANCE = 1e-3
CHUNK = 64
"""Pairs of masks in memory at once."""


class Rise:
    """Randomized input sampling for explanation.

    Source: Petsiuk, Das and Saenko 2018, arXiv:1806.07421: masks of few cells, enlarged smoothly and shifted at random.
    Two changes save most of the samples: every mask is asked with its complement (cells are shown with probability
    1/2), and a place's value is the slope of the logit over the place's visibility, in logits, instead of the mean
    logit under the masks that show it, of which most is the same for all places.

    Args:
        cells: of a mask along the longer side; 7 as in the paper.
        samples: at most so many forward passes.
        stability: stop when an independent repeat would correlate this well with the map.
        replacement: `dark`, `mean` or `blur`, what a place fades to.
        seed: of the masks.
    """

    name = "rise"
    title = "RISE"

    def __init__(
        self,
        *,
        cells: int = 7,
        samples: int = 256,
        stability: float = 0.9,
        replacement: str = "dark",
        seed: int = 0,
    ) -> None:
        self._cells = whole("cells", cells, 2, 64)
        self._sampling = Sampling(samples=samples, stability=stability, seed=seed, replacement=replacement)
        self.cost = samples

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label; logits that showing a place's surroundings adds, on a lattice over the input.

        Raises:
            UnsupportedMethodError: the input has slices, or there is no memory for one forward pass.
        """
        if batch.ndim != 4:  # noqa: PLR2004 - batch, channels, rows, columns
            raise UnsupportedMethodError("RISE needs a two-dimensional input; occlusion explains series")
        clock = Clock()
        hidden = HiddenImage(classifier, batch, self._sampling.replacement)
        masks = Masks(hidden.space, self._cells, self._sampling.seed)
        question = _Question(hidden, masks, labels)
        found = until_stable(question, self._sampling, first=CHUNK, step=CHUNK // 2)
        parameters = self._sampling.described() | {"cells": " x ".join(str(size) for size in masks.grid)}
        parameters["precision"] = hidden.forwards.precision
        seconds = clock.share(labels)
        return [
            Explanation(
                label=label,
                map=torch.from_numpy(found.values[:, column].reshape(masks.lattice).astype(np.float32)),
                parameters=parameters,
                seconds=seconds,
                measures=found.measures(column, hidden.forwards.count),
            )
            for column, label in enumerate(labels)
        ]


class Masks:
    """Soft random masks, 1 shows.

    Args:
        space: (rows, columns) of the input.
        cells: along the longer side.
        seed: of cells and shifts.
    """

    def __init__(self, space: tuple[int, ...], cells: int, seed: int) -> None:
        self._space = space
        # Square cells, and of odd shapes at least two of them.
        self.grid = tuple(max(2, round(cells * side / max(space))) for side in space)
        self.lattice = tuple(min(LATTICE * number, side) for number, side in zip(self.grid, space, strict=True))
        self._rng = np.random.default_rng(seed)

    def draw(self, count: int) -> torch.Tensor:
        """Return the next masks, float32 (count, rows, columns)."""
        cells = self._rng.integers(0, 2, (count, 1, *(number + 1 for number in self.grid))).astype(np.float32)
        side = [-(-length // number) for length, number in zip(self._space, self.grid, strict=True)]
        large = F.interpolate(
            torch.from_numpy(cells),
            size=tuple((number + 1) * s for number, s in zip(self.grid, side, strict=True)),
            mode="bilinear",
            align_corners=False,
        )
        rows, columns = self._space
        shifts = np.stack([self._rng.integers(0, s, count) for s in side], axis=1)
        return torch.stack(
            [mask[0, top : top + rows, left : left + columns] for mask, (top, left) in zip(large, shifts, strict=True)]
        )

    def on_lattice(self, masks: torch.Tensor) -> Floats:
        """Return the masks where values are kept, float64 (count, places)."""
        small = F.adaptive_avg_pool2d(masks.unsqueeze(1), (self.lattice[0], self.lattice[1]))
        return small.flatten(1).double().numpy()


class _Question:
    """Masks with their complements."""

    def __init__(self, hidden: HiddenImage, masks: Masks, labels: Sequence[int]) -> None:
        self._hidden, self._masks, self._labels = hidden, masks, list(labels)
        self._visible = np.zeros((0, int(np.prod(masks.lattice))))
        self._halves = np.zeros((0, len(self._labels)))

    @property
    def asked(self) -> int:
        """Forward passes that the values rest on."""
        return self._hidden.forwards.count

    def ask(self, pairs: int) -> None:
        """Ask about masks and complements; half the difference is all that matters."""
        while pairs > 0:
            drawn = self._masks.draw(min(pairs, CHUNK))
            answers = self._hidden.by_masks(torch.cat([drawn, 1.0 - drawn]))[:, self._labels]
            half = len(drawn)
            self._visible = np.concatenate([self._visible, self._masks.on_lattice(drawn) - 0.5])
            self._halves = np.concatenate([self._halves, (answers[:half] - answers[half:]) / 2])
            pairs -= half

    def estimate(self) -> Estimate:
        """Return the slopes of the logit over the visibility of each place."""
        return slopes(self._visible, self._halves)


def slopes(visible: Floats, halves: Floats) -> Estimate:
    """Return slope and standard error at each place, (places, labels).

    Args:
        visible: visibility less 1/2, (pairs, places).
        halves: half the answer to each mask less half that to its complement, (pairs, labels).
    """
    squares = np.maximum(np.square(visible).sum(axis=0), LEAST_VARIANCE * len(visible))[:, None]
    values = visible.T @ halves / squares
    if len(visible) < SPARE:
        return Estimate(values=values, errors=np.full_like(values, np.inf))
    # Sum of v^2 (h - v b)^2, multiplied out: no array of pairs by places by labels.
    moments = [(visible**power).T @ (halves ** (4 - power)) for power in (2, 3)]
    fourth = (visible**4).sum(axis=0)[:, None]
    scores = np.maximum(moments[0] - 2 * values * moments[1] + values**2 * fourth, 0.0)
    return Estimate(values=values, errors=np.sqrt(scores) / squares)
