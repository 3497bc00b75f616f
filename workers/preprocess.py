"""From grey values on the source grid to a network's input, and from the network's grid back.

A film is resized to the network's square whatever its aspect ratio. The films that the shipped models
learned from are squashed to squares as well, so a letter-boxed film would look to them like a strangely
narrow child with black bars; and a squash keeps the way back exact: one bilinear resize.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from service.errors import NotEligibleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.model_card import Input

BLACK, WHITE = 0.02, 0.98
"""Grey at or beyond these is collimation, burned-in text or saturation: no part of the statistics."""
MARGIN = 0.08
"""Share of each side left out of the statistics: borders, markers and collimation live there."""
MINIMUM_CONTRAST = 1e-3
CLIP = 4.0
"""Standard deviations; burned-in white on a thin film would otherwise drown the network."""


def to_input(grey: NDArray[np.float32], expected: Input) -> torch.Tensor:
    """Resize with anti-aliasing and normalise: (rows, columns) in [0, 1] to (1, 1, rows, columns).

    Raises:
        NotEligibleError: the image is no matrix, holds NaN or infinity, or is constant.
    """
    if grey.ndim != 2 or min(grey.shape) < 1:  # noqa: PLR2004 - a matrix has two axes
        raise NotEligibleError(f"image has shape {grey.shape}; one grey frame is expected")
    if not np.isfinite(grey).all():
        raise NotEligibleError("image holds values that are not finite")
    if float(grey.max()) - float(grey.min()) < MINIMUM_CONTRAST:
        raise NotEligibleError("image is constant: there is nothing to read in it")
    source = torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float32))[None, None]
    resized = resize(source, expected.rows, expected.columns)
    if expected.normalization == "fixed":
        return (resized - expected.mean) / expected.std
    return standardize(resized)


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


def to_source(attribution: torch.Tensor, rows: int, columns: int) -> NDArray[np.float32]:
    """Carry a map of shape (., .) on the network's grid onto the source grid (rows, columns), bilinearly.

    Pixel centres coincide as in `to_input`: the corner of the first pixel stays the corner of the first
    pixel.
    """
    source = F.interpolate(
        attribution.detach().to("cpu", torch.float32)[None, None],
        size=(rows, columns),
        mode="bilinear",
        align_corners=False,
    )
    return np.ascontiguousarray(source[0, 0].numpy())
