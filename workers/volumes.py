"""From a series in geometric order to a three-dimensional network's input, and from its grid back onto the slices.

In the plane each slice is cut out (or padded) and resized with anti-aliasing; along the normal, slices are weighed by
their distance in mm, so uneven spacing keeps its true proportions. A tilted gantry moves each slice within its plane;
the cut moves with it, so that what lies above each other in the patient lies above each other in the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from service.errors import NotEligibleError
from workers.preprocess import check_readable, crop, normalize, percentile_range, resize, scaled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from service.images import Image, Series
    from service.model_card import Input


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle of one slice in pixels; it may reach beyond the slice."""

    top: int
    left: int
    rows: int
    columns: int


def series_range(series: Series, expected: Input) -> tuple[float, float] | None:
    """Return the values that become 0 and 1 in every slice, where the card asks for percentiles of the whole series.

    Raises:
        NotEligibleError: the series is constant or not finite.
    """
    if expected.normalization != "percentile":
        return None
    # Every 16th pixel is enough for percentiles, and 500 slices stay within memory.
    return percentile_range(np.concatenate([image.values.ravel()[::16] for image in series.slices]))


def slices_to_input(series: Series, expected: Input) -> torch.Tensor:
    """Return one input per slice for a two-dimensional network, float32 (slices, channels, rows, columns).

    A slice without contrast, as above the vertex, is no reason to refuse a series; one all of whose slices are is.

    Raises:
        NotEligibleError: no slice has any contrast, or values are not finite.
    """
    value_range = series_range(series, expected)
    check_readable(max((image.grey for image in series.slices), key=lambda grey: float(np.ptp(grey))))
    planes = [_plane(image, expected, value_range) for image in series.slices]
    batch = torch.cat([resize(crop(plane, expected), expected.rows, expected.columns) for plane in planes])
    return normalize(batch, expected)


def series_to_volume(series: Series, expected: Input) -> torch.Tensor:
    """Return the input of a three-dimensional network, float32 (1, channels, slices, rows, columns).

    Raises:
        NotEligibleError: the series is constant or not finite, or its pixels have no size where the card needs one.
    """
    value_range = series_range(series, expected)
    check_readable(max((image.grey for image in series.slices), key=lambda grey: float(np.ptp(grey))))
    volume = _resampled(series, (_plane(image, expected, value_range) for image in series.slices), expected)
    return normalize(volume[None, None], expected)


def mask_to_volume(series: Series, mask: NDArray[np.bool_], expected: Input) -> NDArray[np.float32]:
    """Carry a mask over the slices, of as many rows and columns as it likes, onto the grid of the network's volume.

    Returns:
        The share of every place that lies inside, (slices, rows, columns); what lies beyond the slices does not.

    Raises:
        NotEligibleError: the slices' pixels have no size where the card needs one.
    """
    rows, columns = series.slices[0].grey.shape
    planes = (resize(torch.from_numpy(plane.astype(np.float32))[None, None], rows, columns) for plane in mask)
    return np.asarray(_resampled(series, planes, expected).numpy())


def _resampled(series: Series, planes: Iterable[torch.Tensor], expected: Input) -> torch.Tensor:
    """Return (slices, rows, columns) of the network's grid from one plane (1, 1, rows, columns) of each slice."""
    cut = [
        resize(_cut(plane, box), expected.rows, expected.columns)
        for plane, box in zip(planes, _boxes(series, expected), strict=True)
    ]
    weights = torch.from_numpy(_weights_along_normal(series, expected))
    return torch.einsum("ts,src->trc", weights, torch.cat(cut)[:, 0])


def volume_to_source(series: Series, attribution: torch.Tensor, expected: Input) -> NDArray[np.float32]:
    """Carry a map of shape (., ., .) over the network's volume onto the source slices, (slices, rows, columns)."""
    grid = F.interpolate(
        attribution.detach().to("cpu", torch.float32)[None, None],
        size=(expected.slices, expected.rows, expected.columns),
        mode="trilinear",
        align_corners=False,
    )[0, 0]
    positions = np.array(series.positions_mm)
    targets = _targets(series, expected)
    first = series.slices[0].grey.shape
    result = np.zeros((len(series.slices), *first), dtype=np.float32)
    step = targets[1] - targets[0] if len(targets) > 1 else 1.0
    for index, (position, box) in enumerate(zip(positions, _boxes(series, expected), strict=True)):
        at = (position - targets[0]) / step
        if abs(at - (len(targets) - 1) / 2) > len(targets) / 2:
            continue  # outside what the network saw
        below = int(np.clip(np.floor(at), 0, len(targets) - 1))
        above = min(below + 1, len(targets) - 1)
        share = float(np.clip(at - below, 0.0, 1.0))
        plane = (1 - share) * grid[below] + share * grid[above]
        whole = F.interpolate(plane[None, None], size=(box.rows, box.columns), mode="bilinear", align_corners=False)
        _paste(result[index], whole[0, 0].numpy(), box)
    return result


def _plane(image: Image, expected: Input, value_range: tuple[float, float] | None) -> torch.Tensor:
    plane = scaled(image, expected, value_range)
    if not np.isfinite(plane).all():
        raise NotEligibleError("image holds values that are not finite")
    return torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))[None, None]


def _boxes(series: Series, expected: Input) -> list[Box]:
    """Return what of each slice the network sees."""
    first = series.slices[0]
    rows, columns = first.grey.shape
    offsets = series.offsets_mm or ((0.0, 0.0),) * len(series.slices)
    spacing = first.pixel_spacing_mm
    if spacing is None:
        if expected.spacing_mm:
            raise NotEligibleError("the slices do not say how large their pixels are")
        return [Box(top=0, left=0, rows=rows, columns=columns)] * len(series.slices)
    size = (rows, columns)
    if expected.spacing_mm:
        size = (
            max(1, round(expected.rows * expected.spacing_mm[1] / spacing[0])),
            max(1, round(expected.columns * expected.spacing_mm[2] / spacing[1])),
        )
    middle = np.median(np.array(offsets), axis=0)
    return [
        Box(
            top=round((rows - size[0]) / 2 - (down - middle[0]) / spacing[0]),
            left=round((columns - size[1]) / 2 - (across - middle[1]) / spacing[1]),
            rows=size[0],
            columns=size[1],
        )
        for down, across in offsets
    ]


def _cut(plane: torch.Tensor, box: Box) -> torch.Tensor:
    rows, columns = plane.shape[-2:]
    bottom, right = box.top + box.rows, box.left + box.columns
    inner = plane[..., max(box.top, 0) : max(min(bottom, rows), 0), max(box.left, 0) : max(min(right, columns), 0)]
    # Beyond the slice lies air: 0 is the darkest value.
    return F.pad(
        inner,
        (
            min(max(-box.left, 0), box.columns - inner.shape[-1]),
            min(max(right - columns, 0), box.columns - inner.shape[-1]),
            min(max(-box.top, 0), box.rows - inner.shape[-2]),
            min(max(bottom - rows, 0), box.rows - inner.shape[-2]),
        ),
    )


def _paste(target: NDArray[np.float32], plane: NDArray[np.float32], box: Box) -> None:
    rows, columns = target.shape
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.top + box.rows, rows), min(box.left + box.columns, columns)
    if top < bottom and left < right:
        target[top:bottom, left:right] = plane[top - box.top : bottom - box.top, left - box.left : right - box.left]


def _targets(series: Series, expected: Input) -> NDArray[np.float64]:
    """Return where the network's slices lie along the normal, in mm, ascending."""
    positions = np.array(series.positions_mm)
    middle = (positions[0] + positions[-1]) / 2
    gap = float(np.median(np.diff(positions))) if len(positions) > 1 else 1.0
    step = expected.spacing_mm[0] if expected.spacing_mm else (positions[-1] - positions[0] + gap) / expected.slices
    return np.asarray(middle + (np.arange(expected.slices) - (expected.slices - 1) / 2) * step)


def _weights_along_normal(series: Series, expected: Input) -> NDArray[np.float32]:
    """Return how much of each source slice goes into each of the network's, (network's, source), rows summing to 1.

    A tent as wide as the coarser of the two gaps: linear interpolation where the network is finer, an average where it
    is coarser. Beyond the ends a row is 0, as beyond the edges of a slice.
    """
    positions = np.array(series.positions_mm)
    targets = _targets(series, expected)
    extent = np.abs(np.gradient(positions)) if len(positions) > 1 else np.ones(1)
    step = float(targets[1] - targets[0]) if len(targets) > 1 else 1.0
    distance = np.abs(targets[:, None] - positions[None])
    tent = np.clip(1 - distance / np.maximum(extent, step)[None], 0, None) * extent[None]
    total = tent.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(tent, total, out=np.zeros_like(tent), where=total > 0), dtype=np.float32)
