"""Occlusion: how the logit falls when a window of the image is hidden."""

from __future__ import annotations

from itertools import pairwise, product
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.results import Measure
from workers.explainers.bounds import choice, real, whole
from workers.explainers.hiding import REPLACEMENTS, HiddenImage
from workers.explainers.perturbation import Clock
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from workers.interfaces import Classifier


class Occlusion:
    """Occlusion by a sliding window, for images and for series.

    Source: Zeiler and Fergus 2013, arXiv:1311.2901, section 2.4. A place's value is the mean, over the windows that
    cover it, of the logit of the image less that with the window hidden. The last window of an axis ends at the edge,
    so that every place is covered.

    From coarse to fine: windows side by side come first, and those between them only where one that they overlap
    changed the logit by more than `refine` of the most that any did. What stays coarse is what is hardly drawn.

    Args:
        window: side of the window in pixels of the input's grid; cut to the input where that is smaller.
        stride: pixels from one window to the next.
        slices: thickness of the window in slices, for series.
        slice_stride: slices from one window to the next, for series.
        refine: share of the largest change from which it is looked closer; 0 asks about every window.
        windows: at most so many; with more, strides double up to the window's size, and then windows grow.
        replacement: `dark`, `mean` or `blur`, what hides the window.
    """

    name = "occlusion"
    title = "Occlusion"
    cost = 170

    def __init__(
        self,
        *,
        window: int = 32,
        stride: int = 16,
        slices: int = 4,
        slice_stride: int = 2,
        refine: float = 0.25,
        windows: int = 600,
        replacement: str = "dark",
    ) -> None:
        self._window = (whole("slices", slices, 1, 4096), *[whole("window", window, 1, 4096)] * 2)
        self._stride = (whole("slice_stride", slice_stride, 1, 4096), *[whole("stride", stride, 1, 4096)] * 2)
        if stride > window or slice_stride > slices:
            raise ValueError("a stride must not exceed its window: places between windows would have no value")
        self._refine = real("refine", refine, 0.0, 1.0)
        self._windows = whole("windows", windows, 1, 1_000_000)
        self._replacement = choice("replacement", replacement, REPLACEMENTS)

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label; logits that a window's content adds, on the input's grid.

        Raises:
            UnsupportedMethodError: there is no memory for one forward pass.
        """
        clock = Clock()
        hidden = HiddenImage(classifier, batch, self._replacement)
        axes = hidden.space
        sizes, strides = self._fitting(axes)
        edges = [_starts(n, w, s) for n, w, s in zip(axes, sizes, strides, strict=True)]
        windows = np.array(list(product(*edges)))
        cells, corners = _cells(axes, sizes, edges)
        covered = np.stack([_inside(corners, start, sizes) for start in windows])
        asked, fall = self._falls(
            lambda shown: hidden.by_regions(shown, cells)[:, list(labels)], windows, covered, sizes
        )
        values = covered[asked].T.astype(np.float64) @ fall[asked] / covered[asked].sum(axis=0)[:, None]
        parameters = {
            "window": " x ".join(str(size) for size in sizes),
            "stride": " x ".join(str(step) for step in strides),
            "refine": f"{self._refine:g}",
            "replacement": self._replacement,
            "precision": hidden.forwards.precision,
        }
        seconds = clock.share(labels)
        return [
            Explanation(
                label=label,
                map=torch.from_numpy(values[:, column].astype(np.float32)[cells]),
                parameters=parameters,
                seconds=seconds,
                measures=(
                    Measure(name="samples", title="Forward passes", value=float(hidden.forwards.count), unit="{count}"),
                ),
            )
            for column, label in enumerate(labels)
        ]

    def _falls(
        self,
        ask: Callable[[NDArray[np.bool_]], NDArray[np.float64]],
        windows: NDArray[np.intp],
        covered: NDArray[np.bool_],
        sizes: Sequence[int],
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return which windows were asked about, (windows,), and the fall of the logits, (windows, labels)."""
        image = ask(np.ones((1, covered.shape[1]), dtype=bool))
        fall = np.zeros((len(windows), image.shape[1]))
        asked = _side_by_side(windows, sizes) if self._refine > 0 else np.ones(len(windows), dtype=bool)
        fall[asked] = image - ask(~covered[asked])
        closer = ~asked & _beside(windows, sizes, windows[asked][_matters(fall[asked], self._refine)])
        if closer.any():
            fall[closer] = image - ask(~covered[closer])
        return asked | closer, fall

    def _fitting(self, axes: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return windows and strides along the axes; strides grow, then windows, until there are few enough."""
        sizes = [min(size, length) for size, length in zip(self._window[-len(axes) :], axes, strict=True)]
        strides = [min(step, size) for step, size in zip(self._stride[-len(axes) :], sizes, strict=True)]
        while prod(len(_starts(n, w, s)) for n, w, s in zip(axes, sizes, strides, strict=True)) > self._windows:
            if strides != sizes:
                strides = [min(2 * step, size) for step, size in zip(strides, sizes, strict=True)]
            else:
                sizes = [min(2 * size, length) for size, length in zip(sizes, axes, strict=True)]
                strides = sizes
        return sizes, strides


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows begin along one axis; the last one ends at the edge."""
    starts = list(range(0, length - window + 1, stride))
    return starts if starts[-1] == length - window else [*starts, length - window]


def _side_by_side(windows: NDArray[np.intp], sizes: Sequence[int]) -> NDArray[np.bool_]:
    """Tell which windows to begin with: on each axis as few as leave no gap."""
    chosen = np.ones(len(windows), dtype=bool)
    for axis, size in enumerate(sizes):
        starts = np.unique(windows[:, axis])
        kept = [int(starts[0])]
        while kept[-1] < starts[-1]:
            kept.append(int(starts[starts <= kept[-1] + size][-1]))
        chosen &= np.isin(windows[:, axis], kept)
    return chosen


def _matters(fall: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Tell of which windows any label's logit changed by more than a share of its largest change."""
    change = np.abs(fall)
    matters: NDArray[np.bool_] = (change > share * change.max(axis=0)).any(axis=1)
    return matters


def _beside(windows: NDArray[np.intp], sizes: Sequence[int], others: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell which windows overlap any of the others."""
    distance = np.abs(windows[:, None, :] - others[None, :, :])
    beside: NDArray[np.bool_] = (distance < np.asarray(sizes)).all(axis=2).any(axis=1)
    return beside


def _cells(
    axes: Sequence[int], sizes: Sequence[int], starts: Sequence[Sequence[int]]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cut the input where any window begins or ends: windows are then coalitions of cells.

    Returns:
        The cell of every place, of the input's spatial shape, and the first corner of every cell, (cells, axes).
    """
    cuts = [sorted({0, *s, *(b + w for b in s)} - {n}) for n, w, s in zip(axes, sizes, starts, strict=True)]
    lengths = [[b - a for a, b in pairwise([*c, n])] for c, n in zip(cuts, axes, strict=True)]
    cells = np.zeros((1,) * len(axes), dtype=np.intp)
    for axis, length in enumerate(lengths):
        shape = [-1 if other == axis else 1 for other in range(len(axes))]
        cells = cells * len(length) + np.repeat(np.arange(len(length)), length).reshape(shape)
    return cells.astype(np.intp), np.array(list(product(*cuts)), dtype=np.intp)


def _inside(corners: NDArray[np.intp], start: Sequence[int], sizes: Sequence[int]) -> NDArray[np.bool_]:
    """Tell which cells lie in the window that begins at `start`."""
    offset = corners - np.asarray(start)
    inside: NDArray[np.bool_] = ((offset >= 0) & (offset < np.asarray(sizes))).all(axis=1)
    return inside
