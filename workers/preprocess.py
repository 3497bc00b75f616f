"""From grey values on the source grid to a network's input, and from the network's grid back.

A film is resized to the network's square whatever its aspect ratio. The films that the shipped models
learned from are squashed to squares as well, so a letter-boxed film would look to them like a strangely
narrow child with black bars; and a squash keeps the way back exact: one bilinear resize. A card may ask for
the middle square instead (`fit = "centre-crop"`), as torchxrayvision's and torchvision's recipes do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from service.errors import NotEligibleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.images import Image
    from service.model_card import Input

BLACK, WHITE = 0.02, 0.98
"""Grey at or beyond these is collimation, burned-in text or saturation: no part of the statistics."""
MARGIN = 0.08
"""Share of each side left out of the statistics: borders, markers and collimation live there."""
MINIMUM_CONTRAST = 1e-3
MINIMUM_SIDE = 16
"""Pixels; less holds no anatomy whatever the card says."""
MAXIMUM_PIXELS = 100_000_000
CLIP = 4.0
"""Standard deviations; burned-in white on a thin film would otherwise drown the network."""
PERCENTILES = (1.0, 99.5)
"""Of an image or series, mapped to 0 and 1 by `percentile`: units differ between MR scanners, ranks do not."""
XRV_RANGE = 1024.0
"""torchxrayvision's networks learned from films scaled to [-1024, 1024]."""


def to_input(grey: NDArray[np.float32], expected: Input) -> torch.Tensor:
    """Resize with anti-aliasing and normalise grey in [0, 1]: (rows, columns) to (1, channels, rows, columns).

    Raises:
        NotEligibleError: the image is no matrix, too small or too large, holds NaN or infinity, is black or constant.
    """
    check_readable(grey)
    source = torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float32))[None, None]
    return normalize(resize(crop(source, expected), expected.rows, expected.columns), expected)


def image_to_input(image: Image, expected: Input, value_range: tuple[float, float] | None = None) -> torch.Tensor:
    """Return the network's input for one image, float32 (1, channels, rows, columns).

    Args:
        image: the source.
        expected: from the model's card.
        value_range: with `percentile`, the values that become 0 and 1 in every slice of a series; None takes them
            from the image itself.

    Raises:
        NotEligibleError: as in `to_input`.
    """
    check_readable(image.grey)
    return to_input(scaled(image, expected, value_range), expected)


def scaled(image: Image, expected: Input, value_range: tuple[float, float] | None = None) -> NDArray[np.float32]:
    """Return the plane in [0, 1] that the network's recipe starts from: a window, percentiles, or the grey values."""
    if expected.normalization == "window":
        low, high = (
            expected.window_center - expected.window_width / 2,
            expected.window_center + expected.window_width / 2,
        )
    elif expected.normalization == "percentile":
        low, high = value_range or percentile_range(image.values)
    else:
        return image.grey
    plane: NDArray[np.float32] = np.clip((image.values - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return plane


def percentile_range(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the values that `percentile` maps to 0 and 1.

    Raises:
        NotEligibleError: the values are constant or not finite.
    """
    if not np.isfinite(values).all():
        raise NotEligibleError("image holds values that are not finite")
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        raise NotEligibleError("image is constant: there is nothing to read in it")
    return low, high


def check_readable(grey: NDArray[np.float32]) -> None:
    """Refuse what no model can read.

    Raises:
        NotEligibleError: says what is wrong with it.
    """
    if grey.ndim != 2 or min(grey.shape) < 1:  # noqa: PLR2004 - a matrix has two axes
        raise NotEligibleError(f"image has shape {grey.shape}; one grey frame is expected")
    rows, columns = grey.shape
    if min(rows, columns) < MINIMUM_SIDE:
        raise NotEligibleError(f"image has {rows} x {columns} pixels: too few to read anything in it")
    if rows * columns > MAXIMUM_PIXELS:
        raise NotEligibleError(f"image has {rows} x {columns} pixels; the limit is {MAXIMUM_PIXELS} in all")
    if not np.isfinite(grey).all():
        raise NotEligibleError("image holds values that are not finite")
    if float(grey.max()) - float(grey.min()) < MINIMUM_CONTRAST:
        what = "black throughout" if float(grey.max()) < BLACK else "constant"
        raise NotEligibleError(f"image is {what}: there is nothing to read in it")


def normalize(batch: torch.Tensor, expected: Input) -> torch.Tensor:
    """Apply the card's recipe to (batch, 1, ..., rows, columns) in [0, 1]; channels are repeated as it says."""
    if expected.normalization == "per-image":
        batch = standardize(batch)
    elif expected.normalization == "torchxrayvision":
        batch = (2 * batch - 1) * XRV_RANGE
    batch = batch.expand(-1, expected.channels, *batch.shape[2:])
    if expected.normalization in {"per-image", "torchxrayvision"}:
        return batch.contiguous()
    return ((batch - _per_channel(expected.mean, batch)) / _per_channel(expected.std, batch)).contiguous()


def _per_channel(value: float | tuple[float, ...], batch: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(value, dtype=batch.dtype).reshape((1, -1) + (1,) * (batch.dim() - 2))


def crop(batch: torch.Tensor, expected: Input) -> torch.Tensor:
    """Return the middle square of (batch, channels, rows, columns) where the card asks for it."""
    if expected.fit == "squash":
        return batch
    rows, columns = batch.shape[-2:]
    top, left, side = _middle(rows, columns)
    return batch[..., top : top + side, left : left + side]


def crop_mask(mask: NDArray[np.bool_], *, shape: tuple[int, ...], expected: Input | None) -> NDArray[np.bool_]:
    """Return the part of a mask, (., .) over the whole of a film of `shape`, that `crop` leaves of the film."""
    if expected is None or expected.fit == "squash":
        return mask
    top, left, side = _middle(*shape)
    (first, last), (start, stop) = (
        (round(begin * size / whole), round((begin + side) * size / whole))
        for begin, size, whole in zip((top, left), mask.shape, shape, strict=True)
    )
    return mask[first : max(last, first + 1), start : max(stop, start + 1)]


def _middle(rows: int, columns: int) -> tuple[int, int, int]:
    side = min(rows, columns)
    return (rows - side) // 2, (columns - side) // 2, side


def resize(batch: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Resize (batch, channels, ., .) bilinearly, with a low-pass filter where it shrinks."""
    if batch.shape[-2:] == (rows, columns):
        return batch
    return F.interpolate(batch, size=(rows, columns), mode="bilinear", antialias=True, align_corners=False)


def standardize(batch: torch.Tensor) -> torch.Tensor:
    """Return each image of (batch, 1, rows, columns) with mean 0 and deviation 1, clipped at `CLIP`.

    The statistics leave out the outermost `MARGIN` and everything black or white, so that a border,
    collimation or a side marker does not change the contrast that the network sees in the lungs.
    """
    rows, columns = batch.shape[-2:]
    weight = ((batch > BLACK) & (batch < WHITE)).to(batch.dtype)
    top, left = int(rows * MARGIN), int(columns * MARGIN)
    inner = torch.zeros_like(weight[:1])
    inner[..., top : rows - top, left : columns - left] = 1.0
    weight = weight * inner
    # A film that is all black and white, say a silhouette, still needs statistics.
    few = weight.sum(dim=(2, 3), keepdim=True) < 0.05 * rows * columns
    weight = torch.where(few, torch.ones_like(weight), weight)
    count = weight.sum(dim=(2, 3), keepdim=True)
    mean = (weight * batch).sum(dim=(2, 3), keepdim=True) / count
    variance = (weight * (batch - mean).square()).sum(dim=(2, 3), keepdim=True) / count
    return ((batch - mean) / variance.sqrt().clamp_min(MINIMUM_CONTRAST)).clamp(-CLIP, CLIP)


def to_source(attribution: torch.Tensor, rows: int, columns: int, expected: Input | None = None) -> NDArray[np.float32]:
    """Carry a map of shape (., .) on the network's grid onto the source grid (rows, columns), bilinearly.

    Pixel centres coincide as in `to_input`: the corner of the first pixel stays the corner of the first
    pixel. What `centre-crop` cut away, the network never saw: it is 0.
    """
    if expected is None or expected.fit == "squash":
        return _resized(attribution, rows, columns)
    top, left, side = _middle(rows, columns)
    source = np.zeros((rows, columns), dtype=np.float32)
    source[top : top + side, left : left + side] = _resized(attribution, side, side)
    return source


def _resized(attribution: torch.Tensor, rows: int, columns: int) -> NDArray[np.float32]:
    source = F.interpolate(
        attribution.detach().to("cpu", torch.float32)[None, None],
        size=(rows, columns),
        mode="bilinear",
        align_corners=False,
    )
    return np.ascontiguousarray(source[0, 0].numpy())
