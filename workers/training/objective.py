"""What a step of training minimises: the class, and where the class activation lies.

"Right for the right reasons" (Ross et al. 2017, arXiv:1703.03717) with class activation in place of gradients, as
the map that readers will see is the one that is held to the lungs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import nn
from torch.nn import functional as F

from service.errors import ModelError
from workers.training.augment import Batch, widen

if TYPE_CHECKING:
    from types import TracebackType

    from workers.training.settings import Synthesis

LUNG_MARGIN = 10
"""Pixels around the lung estimate that still count as lung: hila, pleura, and the estimate's own error."""
MASK_MARGIN = 5
NONE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Means over a batch; `total` is what is minimised."""

    total: torch.Tensor
    entropy: torch.Tensor
    outside: torch.Tensor
    inside: torch.Tensor
    covered: torch.Tensor


class Activation:
    """Keeps the class activation map of every forward pass while it is open; the hook leaves with it."""

    def __init__(self, network: nn.Module, cam_layer: str) -> None:
        heads = [module for module in network.modules() if isinstance(module, nn.Linear)]
        if len(heads) != 1:
            raise ModelError(f"class activation maps need exactly one linear layer; the graph has {len(heads)}")
        self._head = heads[0]
        self._layer = network.get_submodule(cam_layer)
        self._maps: torch.Tensor | None = None

    def __enter__(self) -> Self:
        self._handle = self._layer.register_forward_hook(self._keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.remove()
        self._maps = None

    def _keep(self, _module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self._maps = output

    def map(self) -> torch.Tensor:
        """Return the map of the last pass, float32 (batch, 1, rows, columns): its mean is logit minus bias."""
        if self._maps is None:
            raise ModelError("no forward pass has gone through the layer of the class activation map")
        weight = self._head.weight[0].float()
        return torch.einsum("c,bcij->bij", weight, self._maps.float())[:, None]


def losses(
    logits: torch.Tensor,
    activation: torch.Tensor,
    *,
    target: torch.Tensor,
    batch: Batch,
    settings: Synthesis,
) -> Losses:
    """Return the losses of one batch.

    Args:
        logits: float32 (batch, 1).
        activation: class activation map, float32 (batch, 1, i, j).
        target: float32 (batch, 1), in [0, 1].
        batch: what is known of the films, on their own grid.
        settings: the weights of the terms.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target)
    grid = (activation.shape[-2], activation.shape[-1])
    lungs = F.adaptive_avg_pool2d(widen(batch.lungs, LUNG_MARGIN), grid)
    masks = F.adaptive_avg_pool2d(widen(batch.masks, MASK_MARGIN), grid)
    outside = _outside(activation, lungs)
    inside = _inside(activation, masks)
    covered = _covered(activation, F.adaptive_avg_pool2d(batch.masks, grid))
    total = (
        entropy
        + settings.outside_weight * outside
        + settings.inside_weight * inside
        + settings.covered_weight * covered
    )
    return Losses(
        total=total,
        entropy=entropy.detach(),
        outside=outside.detach(),
        inside=inside.detach(),
        covered=covered.detach(),
    )


def _outside(activation: torch.Tensor, lungs: torch.Tensor) -> torch.Tensor:
    """Return the share of all evidence, for and against, that lies outside the lungs, where they are known."""
    known = lungs.amax(dim=(1, 2, 3)) > 0
    evidence = activation.abs()
    share = (evidence * (1 - lungs)).sum(dim=(1, 2, 3)) / (evidence.sum(dim=(1, 2, 3)) + NONE)
    return (share * known).sum() / known.sum().clamp_min(1)


def _inside(activation: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return minus the logarithm of the share of evidence for the finding inside what was planted."""
    planted = masks.amax(dim=(1, 2, 3)) > NONE
    evidence = activation.clamp_min(0)
    share = (evidence * masks).sum(dim=(1, 2, 3)) / (evidence.sum(dim=(1, 2, 3)) + NONE)
    return (-torch.log(share + 0.02) * planted).sum() / planted.sum().clamp_min(1)


def _covered(activation: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return how far the evidence inside what was planted stays below half the film's maximum: 0 is full cover.

    The share alone is best served by one bright cell; readers see the contour at half the maximum, and expect
    the whole opacity within it.
    """
    area = masks.sum(dim=(1, 2, 3))
    half = activation.detach().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1) / 2
    lacking = ((1 - activation / half).clamp_min(0) * masks).sum(dim=(1, 2, 3)) / area.clamp_min(NONE)
    planted = area > NONE
    return (lacking * planted).sum() / planted.sum().clamp_min(1)
