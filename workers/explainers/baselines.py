"""What an image is compared with: the baselines of Integrated Gradients, GradientSHAP and DeepSHAP.

No baseline is neutral. What equals its baseline gets nothing, however much it matters (Sturmfels et al. 2020,
"Visualizing the Impact of Feature Attribution Baselines", doi:10.23915/distill.00022).
"""

from __future__ import annotations

import math

import torch

from workers.explainers.hiding import DARK, REPLACEMENTS, darker_greys, replacement

BASELINES = ("zero", "black", *REPLACEMENTS)
REFERENCES = ("darks", "blurs", "greys")
DARKEST = 0.1
"""Quantile of the coarse image that the darkest of the `darks` comes near to; the brightest is what hides elsewhere."""
NARROW, WIDE = 0.03, 0.3
"""Standard deviations of the narrowest and the widest blur, as shares of each side."""


def baseline(batch: torch.Tensor, kind: str) -> torch.Tensor:
    """Return one baseline, of the batch's shape.

    Args:
        batch: one input, (1, channels, ...).
        kind: `zero`, which is the mean grey of a standardised film; `black`, the image's smallest value; or what
            perturbation methods hide with, see `workers.explainers.hiding.replacement`.
    """
    if kind == "zero":
        return torch.zeros_like(batch)
    if kind == "black":
        return torch.full_like(batch, float(batch.min()))
    return replacement(batch, kind)


def references(batch: torch.Tensor, kind: str, count: int) -> torch.Tensor:
    """Return several baselines, (count, channels, ...).

    Shapley values by gradients are means over a distribution of references. A model package carries no images of
    others, so the distribution is made of the image itself.

    Args:
        batch: one input, (1, channels, ...).
        kind: `darks`, the image with nothing brighter than each of several of its own darker greys: opacities go, edges
            and air stay; `blurs`, the image under Gaussians from narrow to wide: what remains is the film's exposure,
            what goes is ever larger detail; or `greys`, uniform images at quantiles of the image's grey.
        count: how many.
    """
    if kind == "darks":
        shares = DARKEST + (DARK - DARKEST) * torch.arange(1, count + 1, device=batch.device) / count
        limits = darker_greys(batch, shares)
        return torch.cat([torch.minimum(batch, limit) for limit in limits])
    if kind == "greys":
        shares = (torch.arange(count, dtype=torch.float32, device=batch.device) + 0.5) / count
        greys = batch.flatten(2)[0].quantile(shares, dim=1)
        return greys.reshape(count, -1, *[1] * (batch.ndim - 2)).expand(-1, -1, *batch.shape[2:]).contiguous()
    steps = [index / max(count - 1, 1) for index in range(count)]
    widths = [NARROW * (WIDE / NARROW) ** step for step in steps] if count > 1 else [math.sqrt(NARROW * WIDE)]
    return torch.cat([_blurred(batch, width) for width in widths])


def _blurred(batch: torch.Tensor, width: float) -> torch.Tensor:
    """Blur by one matrix product per axis: for wide Gaussians far cheaper than a convolution."""
    result = batch
    for axis in range(2, batch.ndim):
        side = batch.shape[axis]
        place = torch.arange(side, dtype=torch.float32, device=batch.device)
        distance = (place[:, None] - place[None, :]) / (width * side)
        kernel = torch.exp(-0.5 * distance.square())
        # Each row sums to 1, so that the border is no darker than the middle.
        kernel = kernel / kernel.sum(dim=1, keepdim=True)
        result = (result.movedim(axis, -1) @ kernel.T).movedim(-1, axis)
    return result.contiguous()
