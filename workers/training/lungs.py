"""Where the lungs probably are on a clear film, by a rule.

On a film without disease the lungs are the two large dark regions inside the body, and a threshold finds
them. A consolidated lung is as bright as the heart, so there the rule fails; a small network that saw the
clear films with haze painted over their lungs, and phantoms, still recognises the outline. These are
estimates that guide training and measure it; they are not anatomy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUNG_SHARE = (0.12, 0.48)
"""Plausible share of the film that both lungs cover."""
LUNG_BALANCE = 0.35
"""The smaller lung has at least this share of the larger one's area."""


def lungs_by_threshold(film: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return the lung fields of a film without disease, or None when the rule finds nothing plausible.

    `film` has shape (rows, columns), MONOCHROME2. Dark regions inside the body, each side's largest,
    smoothed.
    """
    rows, columns = film.shape
    smooth = ndimage.gaussian_filter(film.astype(np.float32), rows / 75)
    background = ndimage.gaussian_filter(smooth, rows / 4.5)
    dark = (smooth < background - 2) & ~_outside(smooth)
    dark[: rows // 20] = dark[:, : columns // 25] = dark[:, columns - columns // 25 :] = False
    dark = ndimage.binary_opening(dark, iterations=max(1, rows // 75))
    found = _largest_each_side(dark)
    if found is None:
        return None
    mask = _close(found[:, : columns // 2], found[:, columns // 2 :], rows // 14)
    share = float(mask.mean())
    return mask if LUNG_SHARE[0] <= share <= LUNG_SHARE[1] else None


def _close(left: NDArray[np.bool_], right: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Fill the notches that ribs and vessels leave in each half, without a bridge over the mediastinum."""
    closed = []
    for half in (left, right):
        padded = ndimage.binary_closing(np.pad(half, reach + 1), iterations=reach)
        closed.append(ndimage.binary_fill_holes(padded[reach + 1 : -reach - 1, reach + 1 : -reach - 1]))
    return np.concatenate(closed, axis=1)


def _outside(smooth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the air around the body: dark and connected to the left, right or upper edge."""
    labels, _ = ndimage.label(smooth < np.percentile(smooth, 50) * 0.55)
    edge = np.unique(np.concatenate([labels[:, 0], labels[:, -1], labels[0], labels[:, 1], labels[:, -2]]))
    return np.isin(labels, edge[edge > 0])


def _largest_each_side(dark: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    labels, count = ndimage.label(dark)
    if count == 0:
        return None
    numbers = np.arange(1, count + 1)
    areas = ndimage.sum_labels(dark, labels, numbers)
    centres = np.array(ndimage.center_of_mass(dark, labels, numbers))
    rows, columns = dark.shape
    fits = (centres[:, 0] > 0.2 * rows) & (centres[:, 0] < 0.72 * rows)
    chosen = []
    for side in (centres[:, 1] < columns / 2, centres[:, 1] >= columns / 2):
        candidates = np.where(side & fits, areas, 0)
        if candidates.max() == 0:
            return None
        chosen.append(int(candidates.argmax()))
    first, second = (float(areas[index]) for index in chosen)
    if min(first, second) < LUNG_BALANCE * max(first, second):
        return None
    return np.isin(labels, numbers[chosen])
