"""Class activation maps: what the last feature map contributed to a finding, place by place."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch

from service.errors import UnsupportedMethodError
from workers.explainers.passes import shared_pass
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.interfaces import Classifier

WITH_SPACE = 4
"""Axes that a feature map has at least: batch, channels and two of space."""


class _ActivationMap(ABC):
    """What the four methods share; they differ in how they weigh the feature maps.

    Args:
        layer: dotted name of the layer whose output is mapped; empty for the card's `weights.cam_layer`.

    Raises:
        ValueError: the layer's name is no text.
    """

    name: str
    title: str
    cost = 3

    def __init__(self, *, layer: str = "") -> None:
        if not isinstance(layer, str):
            raise ValueError(f"layer must be the name of a layer, not {layer!r}")  # noqa: TRY004 - house rule
        self.layer = layer

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label; the map lies on the grid of the CAM layer, in arbitrary units.

        Raises:
            UnsupportedMethodError: the model gives no gradients, or that layer's output has no places.
            ModelError: the network has no such layer.
        """
        return [self._explain(classifier, batch, label) for label in labels]

    def _explain(self, classifier: Classifier, batch: torch.Tensor, label: int) -> Explanation:
        begun = time.perf_counter()
        cam, layer = activation_map(self, classifier, batch, label, self.layer)
        return Explanation(
            label=label,
            map=cam,
            parameters={"layer": layer, "grid": " x ".join(str(size) for size in cam.shape)},
            seconds=time.perf_counter() - begun,
        )

    @abstractmethod
    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return what multiplies the activation: shape of both, (1, channels, ...), or 1 along the axes of space."""


def activation_map(
    method: _ActivationMap, classifier: Classifier, batch: torch.Tensor, label: int, layer: str = ""
) -> tuple[torch.Tensor, str]:
    """Return a map on the layer's grid, float32 on the CPU, and the layer's name."""
    kept = shared_pass(classifier, batch, layer)
    if kept.activation.ndim < WITH_SPACE:
        raise UnsupportedMethodError(f"the output of layer '{kept.layer}' has no places that a map could show")
    activation = kept.activation.detach()
    weights = method.weigh(activation, kept.at_layer(label))
    return (weights * activation).sum(dim=1)[0].float().cpu(), kept.layer


class GradCam(_ActivationMap):
    """Gradient-weighted class activation mapping.

    Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", arXiv:1610.02391. The paper keeps the positive part only; the map here is signed (positive raised
    the logit, negative lowered it), and whoever draws it leaves the negative part out.
    """

    name = "grad-cam"
    title = "Grad-CAM"

    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return each channel's mean gradient."""
        return gradient.mean(dim=tuple(range(2, activation.ndim)), keepdim=True)


class GradCamPlusPlus(_ActivationMap):
    """Grad-CAM whose channels weigh by their positive gradients, so that several places can answer for a finding.

    Source: Chattopadhay et al. 2018, "Grad-CAM++", arXiv:1710.11063, equation 19 for an exponential score, whose
    positive factor only scales the map. Positive where features that raise the logit are active; it shows nothing of
    what lowered it.
    """

    name = "grad-cam-plus-plus"
    title = "Grad-CAM++"

    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return each channel's sum of positive gradients, weighed by the paper's alpha."""
        space = tuple(range(2, activation.ndim))
        # The paper's g^2 / (2 g^2 + g^3 sum(A)), with g^2 cancelled: cubes of small gradients would vanish.
        below = 2.0 + activation.sum(dim=space, keepdim=True) * gradient
        alpha = torch.where(below > 0, 1.0 / below.clamp_min(1e-6), torch.zeros_like(below))
        return (alpha * gradient.clamp_min(0.0)).sum(dim=space, keepdim=True)


class HiResCam(_ActivationMap):
    """Gradient times activation, summed over channels: each place answers for itself alone.

    Source: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
    neural networks", arXiv:2011.08891. Signed. For networks that end in one linear layer (pooled or not) the map sums
    to the logit less its bias.
    """

    name = "hires-cam"
    title = "HiResCAM"

    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient, place by place."""
        del activation
        return gradient


class LayerCam(_ActivationMap):
    """Positive gradient times activation, place by place: made for fine maps from early layers.

    Source: Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 30,
    5875-5888. It shows nothing of what lowered the logit.
    """

    name = "layer-cam"
    title = "LayerCAM"

    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the positive part of the gradient, place by place."""
        del activation
        return gradient.clamp_min(0.0)
