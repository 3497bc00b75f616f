"""Cuts an input into regions that follow its edges, and joins them into a tree.

After SLIC (Achanta et al. 2012, doi:10.1109/TPAMI.2012.120): k-means over grey value and place, each place comparing
the nine nearest centres. Seeds lie on a regular grid and nothing is drawn at random, so the same image always gives
the same regions, and a flipped image gives the flipped ones.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from scipy.cluster.hierarchy import linkage

from service.errors import UnsupportedMethodError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]

ROUNDS = 8
COMPACTNESS = 1.0
"""Grey standard deviations that weigh as much as the distance of two seeds."""
SMOOTHING = 0.005
"""Standard deviation of the filter before clustering, as a share of the longer side; noise makes ragged regions."""


def superpixels(batch: torch.Tensor, count: int) -> Indices:
    """Return the region of every pixel, (rows, columns), indices from 0 without gaps, in reading order.

    Args:
        batch: one input, (1, channels, rows, columns).
        count: about how many regions.

    Raises:
        UnsupportedMethodError: the input has slices; regions of those would be thousands.
    """
    if batch.ndim != 4:  # noqa: PLR2004 - batch, channels, rows, columns
        raise UnsupportedMethodError("superpixels need a two-dimensional input; occlusion explains series")
    values = batch.detach()[0].mean(dim=0).to("cpu", torch.float32).contiguous().numpy()
    return _segment(values.tobytes(), values.shape, count)


@lru_cache(maxsize=8)
def _segment(content: bytes, shape: tuple[int, int], count: int) -> Indices:
    image = np.frombuffer(content, dtype=np.float32).reshape(shape).astype(np.float64)
    image = ndimage.gaussian_filter(image, SMOOTHING * max(shape), mode="nearest")
    grey = image / max(float(image.std()), 1e-6)
    grid = _grid(shape, count)
    labels = _connected(_cluster(grey, grid), grid[0] * grid[1])
    labels.setflags(write=False)
    return labels


def _grid(shape: tuple[int, int], count: int) -> tuple[int, int]:
    rows = min(max(round((count * shape[0] / shape[1]) ** 0.5), 1), shape[0])
    return rows, min(max(round(count / rows), 1), shape[1])


def _cluster(grey: Floats, grid: tuple[int, int]) -> Indices:
    rows, columns = grid
    # In units of the seeds' distance, from the image's middle: flipping then only changes signs.
    place = [_coordinates(size, cells) for size, cells in zip(grey.shape, grid, strict=True)]
    y, x = np.meshgrid(*place, indexing="ij")
    # By pixel centres, for the same reason.
    home = [(2 * np.arange(size) + 1) * cells // (2 * size) for size, cells in zip(grey.shape, grid, strict=True)]
    labels: Indices = (home[0][:, None] * columns + home[1][None, :]).astype(np.intp)
    around = [(labels, np.ones(grey.shape, dtype=bool))]
    around += [_neighbour(home, grid, *step) for step in product((-1, 0, 1), repeat=2) if any(step)]
    for _ in range(ROUNDS):
        size = np.maximum(np.bincount(labels.ravel(), minlength=rows * columns), 1)
        centre = [np.bincount(labels.ravel(), v.ravel(), rows * columns) / size for v in (y, x, grey)]
        distances = np.stack([_distance(index, inside, (y, x, grey), centre) for index, inside in around])
        nearest = distances.argmin(axis=0)
        labels = np.take_along_axis(np.stack([index for index, _ in around]), nearest[None], axis=0)[0]
    return labels


def _coordinates(size: int, cells: int) -> Floats:
    places: Floats = (np.arange(size) - (size - 1) / 2) * cells / size
    return places


def _neighbour(
    home: list[NDArray[np.int64]], grid: tuple[int, int], down: int, right: int
) -> tuple[Indices, NDArray[np.bool_]]:
    """Return a neighbouring seed of every pixel, and where there is one."""
    row, column = home[0] + down, home[1] + right
    inside = ((row >= 0) & (row < grid[0]))[:, None] & ((column >= 0) & (column < grid[1]))[None, :]
    index = np.clip(row, 0, grid[0] - 1)[:, None] * grid[1] + np.clip(column, 0, grid[1] - 1)[None, :]
    return index.astype(np.intp), inside


def _distance(
    index: Indices, inside: NDArray[np.bool_], of: tuple[Floats, Floats, Floats], centre: list[Floats]
) -> Floats:
    y, x, grey = (value - middle[index] for value, middle in zip(of, centre, strict=True))
    return np.where(inside, y * y + x * x + (grey / COMPACTNESS) ** 2, np.inf)


def _connected(labels: Indices, count: int) -> Indices:
    """Keep each region's largest piece, give the crumbs to what lies nearest, and count in reading order."""
    kept = np.full(labels.shape, -1, dtype=np.intp)
    for label, box in enumerate(ndimage.find_objects(labels + 1, max_label=count)):
        if box is None:
            continue
        pieces, number = ndimage.label(labels[box] == label)
        sizes = np.bincount(pieces.ravel(), minlength=number + 1)
        sizes[0] = 0
        kept[box][pieces == sizes.argmax()] = label
    nearest = ndimage.distance_transform_edt(kept < 0, return_distances=False, return_indices=True)
    filled = kept[tuple(nearest)]
    # Seeds are in reading order already; only gaps need closing.
    closed: Indices = np.unique(filled, return_inverse=True)[1].reshape(labels.shape).astype(np.intp)
    return closed


def region_tree(batch: torch.Tensor, regions: Indices) -> list[tuple[int, int]]:
    """Join regions two by two, by grey value and place (Ward 1963), until one is left.

    Returns:
        The two parts of node `count + i` at index i; nodes below `count` are regions, the last one is the image.
    """
    count = int(regions.max()) + 1
    if count == 1:
        return []
    grey = batch.detach()[0].mean(dim=0).to("cpu", torch.float64).numpy()
    places = [p * count**0.5 / size for p, size in zip(np.indices(regions.shape), regions.shape, strict=True)]
    size = np.bincount(regions.ravel(), minlength=count)
    features = [np.bincount(regions.ravel(), v.ravel(), count) / size for v in (*places, grey / max(grey.std(), 1e-6))]
    joined = linkage(np.stack(features, axis=1), method="ward")
    return [(int(left), int(right)) for left, right in joined[:, :2]]
