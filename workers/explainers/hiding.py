"""Shows a network parts of an image and hides the rest: what every perturbation method is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from workers.explainers.batching import Forwards
from workers.explainers.evidence import evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.explainers.batching import Make
    from workers.interfaces import Classifier

REPLACEMENTS = ("dark", "mean", "blur")
BLUR = 0.1
"""Standard deviation of the blur, as a share of each side: organs stay as grey clouds, opacities dissolve."""

DARK = 0.3
"""Quantile of the coarse image that counts as its darker parts."""
COARSE = 28
"""Cells along each side of the coarse image."""


def replacement(batch: torch.Tensor, kind: str) -> torch.Tensor:
    """Return what stands where the image is hidden, of the batch's shape, on its device.

    `dark` is the image with nothing brighter than its own darker parts: opacities go, edges and air stay. Of a finding
    that is itself dark, a pneumothorax say, it tells nothing. `mean` is each channel's mean: it hides more, with
    outlines that are edges no film has. `blur` is the image under a wide Gaussian (Fong and Vedaldi 2017,
    arXiv:1704.03296): no edges, but a large opacity shines through it, so that hiding it changes little.
    """
    if kind == "dark":
        return torch.minimum(batch, darker_greys(batch, torch.tensor([DARK]))[0])
    if kind == "mean":
        return batch.mean(dim=tuple(range(2, batch.ndim)), keepdim=True).expand_as(batch).contiguous()
    values = batch.detach().to("cpu", torch.float32).numpy()
    sigma = (0.0, 0.0, *(BLUR * side for side in batch.shape[2:]))
    return torch.from_numpy(ndimage.gaussian_filter(values, sigma, mode="nearest")).to(batch.device)


def darker_greys(batch: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return quantiles of the coarse image, (shares, 1, channels, 1, ...): letters and noise are averaged away."""
    cells = [min(COARSE, side) for side in batch.shape[2:]]
    if len(cells) == 2:  # noqa: PLR2004 - rows and columns
        coarse = F.adaptive_avg_pool2d(batch, (cells[0], cells[1]))
    else:
        coarse = F.adaptive_avg_pool3d(batch, (cells[0], cells[1], cells[2]))
    found = coarse.flatten(2).quantile(shares.to(batch), dim=2)
    return found.reshape(len(shares), *batch.shape[:2], *[1] * (batch.ndim - 2))


class HiddenImage:
    """One image of which parts are hidden, and what the classifier says of it.

    Args:
        classifier: gives the logits.
        batch: one input, float32 (1, channels, rows, columns) or (1, channels, slices, rows, columns).
        kind: what stands where it is hidden, see `replacement`.
    """

    def __init__(self, classifier: Classifier, batch: torch.Tensor, kind: str) -> None:
        self._card = classifier.card
        self._image = batch.detach()
        self._hidden = replacement(self._image, kind)
        self.space = tuple(batch.shape[2:])
        halves = torch.arange(self.space[-1], device=batch.device) < self.space[-1] // 2
        half = torch.where(halves, self._image, self._hidden)
        self.forwards = Forwards(classifier, torch.cat([self._image, self._hidden, half]))

    def by_regions(self, shown: NDArray[np.bool_], regions: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return logits, float64 (count, labels), with regions shown and the others hidden.

        Args:
            shown: bool (count, regions).
            regions: index of the region of every place, of the input's spatial shape.
        """
        where = torch.from_numpy(regions.astype(np.int64))
        rows = torch.from_numpy(np.ascontiguousarray(shown))

        def make(start: int, end: int, device: torch.device) -> torch.Tensor:
            masks = rows[start:end].to(device)[:, where.to(device)].unsqueeze(1)
            return torch.where(masks, self._image.to(device), self._hidden.to(device))

        return self._answers(len(shown), make)

    def by_masks(self, masks: torch.Tensor) -> NDArray[np.float64]:
        """Return logits, float64 (count, labels), with the image faded.

        Args:
            masks: float32 or bool, (count, ...) of the input's spatial shape; 1 shows, 0 hides.
        """

        def make(start: int, end: int, device: torch.device) -> torch.Tensor:
            faded = masks[start:end].to(device, torch.float32).unsqueeze(1)
            return torch.lerp(self._hidden.to(device), self._image.to(device), faded)

        return self._answers(len(masks), make)

    def _answers(self, count: int, make: Make) -> NDArray[np.float64]:
        return np.asarray(evidence(self._card, torch.from_numpy(self.forwards(count, make))).numpy())
