"""Where an attribution is strong: its positive part scaled to [0, 1], and level lines of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import contourpy
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_REGIONS = 5
"""More regions than this are not a report but a texture."""
MAX_POINTS = 200
"""Per polyline; a viewer draws each point."""
_MIN_SHARE = 0.0005
"""Of the image: smaller islands are noise of the map."""
_ROUGH = 12
"""A map with more islands at half maximum is a pixel map and is smoothed before lines are drawn."""
_SMOOTHING = 0.02
"""Of the longer side: standard deviation of the smoothing."""
_GRID = 512
"""Lines are computed on at most this many samples a side; a class activation map has 7 to 32."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """One closed outline of a level set."""

    points: NDArray[np.float64]
    """Shape (n, 2): column, row from the top-left corner of the first pixel, as SCOORD counts
    (PS3.3 C.18.6.1.1); the first point is repeated at the end."""
    area: float
    """Square pixels of the source grid."""


def positive(attribution: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the positive part; what is not finite counts as zero."""
    return np.asarray(np.where(np.isfinite(attribution), np.maximum(attribution, 0.0), 0.0), dtype=np.float32)


def magnitude(attribution: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the positive part, scaled so that its maximum is 1; zero everywhere when nothing is positive."""
    values = positive(attribution)
    peak = float(values.max(initial=0.0))
    return values / np.float32(peak) if peak > 0.0 else values


def outlined(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the map that lines are drawn on: the map itself, or smoothed when it is a pixel map.

    The maximum stays what it was, so that a weak slice of a series stays weak.
    """
    if not is_rough(values):
        return values
    step = max(1, -(-max(values.shape) // _GRID))
    grid = _block_means(values, step)
    smooth = ndimage.gaussian_filter(grid, sigma=_SMOOTHING * max(grid.shape), mode="constant")
    spread = ndimage.zoom(magnitude(smooth.astype(np.float32)), step, order=1, grid_mode=True, mode="nearest")
    return np.asarray(spread[: values.shape[0], : values.shape[1]] * values.max(), dtype=np.float32)


def is_rough(values: NDArray[np.float32]) -> bool:
    """Tell a pixel map: more than twelve islands above half of its maximum."""
    return _islands(values) > _ROUGH


def regions(values: NDArray[np.float32], level: float) -> list[Region]:
    """Return the outer outlines at `level`, largest first, at most five.

    Args:
        values: shape (rows, columns), in [0, 1], as `outlined` gives it.
        level: in (0, 1).
    """
    if float(values.max(initial=0.0)) <= level:
        return []
    step = max(1, -(-max(values.shape) // _GRID))
    grid = _block_means(values, step)
    # A frame of zeros closes the lines at the border of the image.
    lines = contourpy.contour_generator(z=np.pad(grid, 1)).lines(level)
    found = [_region(line, step, values.shape) for line in lines]
    minimum = _MIN_SHARE * values.size
    outer = [region for region in found if region is not None and region.area >= minimum]
    return sorted(outer, key=lambda region: -region.area)[:MAX_REGIONS]


def inside(region: Region, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which pixel centres lie inside the outline, by the even-odd rule."""
    x, y = region.points[:, 0], region.points[:, 1]
    left, right = int(x.min()), int(np.ceil(x.max()))
    top, bottom = int(y.min()), int(np.ceil(y.max()))
    rows, columns = np.arange(top, bottom) + 0.5, np.arange(left, right) + 0.5
    crossings = np.zeros((bottom - top, right - left), dtype=np.int32)
    for x0, y0, x1, y1 in zip(x[:-1], y[:-1], x[1:], y[1:], strict=True):
        hit = np.nonzero((rows >= min(y0, y1)) & (rows < max(y0, y1)))[0]
        if hit.size:
            at = x0 + (rows[hit] - y0) * (x1 - x0) / (y1 - y0)
            crossings[hit] += columns[None, :] >= at[:, None]
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = crossings % 2 == 1
    return mask


def _islands(values: NDArray[np.float32]) -> int:
    step = max(1, -(-max(values.shape) // _GRID))
    return int(ndimage.label(values[::step, ::step] > 0.5 * values.max())[1])


def _block_means(values: NDArray[np.float32], step: int) -> NDArray[np.float64]:
    """Average blocks of step x step pixels; an incomplete last block is averaged over what it has."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], step), axis=0, dtype=np.float64)
    sums = np.add.reduceat(rows, np.arange(0, values.shape[1], step), axis=1)
    sizes = [np.minimum(step, side - np.arange(0, side, step)) for side in values.shape]
    return np.asarray(sums / np.outer(sizes[0], sizes[1]), dtype=np.float64)


def _region(line: NDArray[np.float64], step: int, shape: tuple[int, ...]) -> Region | None:
    """Carry a line of the padded grid onto the source grid.

    Grid index i of the padded grid is the block i - 1, whose centre lies (i - 1 + 0.5) * step from the corner.
    """
    corners = np.array([shape[1], shape[0]], dtype=np.float64)
    points = np.clip((line - 0.5) * step, 0.0, corners)
    area = _signed_area(points)
    # contourpy walks with higher values on the left: holes come out with the opposite sign.
    if area <= 0:
        return None
    return Region(points=_simplified(points), area=area)


def _signed_area(points: NDArray[np.float64]) -> float:
    x, y = points[:, 0], points[:, 1]
    return float(0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def _simplified(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop points that are within a tolerance of their chord (Douglas and Peucker 1973), then close exactly."""
    tolerance = 0.1
    kept = _douglas_peucker(points, tolerance)
    while len(kept) > MAX_POINTS:
        tolerance *= 1.6
        kept = _douglas_peucker(points, tolerance)
    kept[-1] = kept[0]
    return kept


def _douglas_peucker(points: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    keep = np.zeros(len(points), dtype=bool)
    # A closed line has no chord: split it at the point farthest from its start.
    far = int(np.argmax(np.linalg.norm(points - points[0], axis=1)))
    keep[[0, far, len(points) - 1]] = True
    spans = [(0, far), (far, len(points) - 1)]
    while spans:
        start, end = spans.pop()
        if end - start < 2:  # noqa: PLR2004 - nothing lies between neighbours
            continue
        distance = _distances(points[start + 1 : end], points[start], points[end])
        middle = int(np.argmax(distance))
        if distance[middle] > tolerance:
            split = start + 1 + middle
            keep[split] = True
            spans += [(start, split), (split, end)]
    return points[keep].copy()


def _distances(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    chord = end - start
    length = float(np.hypot(chord[0], chord[1]))
    if length == 0:
        return np.asarray(np.linalg.norm(points - start, axis=1))
    across = (points[:, 0] - start[0]) * chord[1] - (points[:, 1] - start[1]) * chord[0]
    return np.asarray(np.abs(across) / length)
