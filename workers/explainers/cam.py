"""Class activation maps: what the last feature map contributed to a finding, place by place."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from service.errors import ModelError, UnsupportedMethodError
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workers.interfaces import Classifier


class GradCam:
    """Gradient-weighted class activation mapping.

    Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV. The paper keeps the positive part only; the map here is signed (positive raised the
    logit, negative lowered it), and whoever draws it leaves the negative part out.
    """

    name = "grad-cam"
    title = "Grad-CAM"
    cost = 3

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label; the map lies on the grid of the CAM layer, in arbitrary units."""
        return [self._explain(classifier, batch, label) for label in labels]

    def _explain(self, classifier: Classifier, batch: torch.Tensor, label: int) -> Explanation:
        begun = time.perf_counter()
        network = _differentiable(classifier)
        with torch.enable_grad(), _features(classifier, network) as kept:
            score = network(batch.detach().requires_grad_())[0, label]
            (activation,) = kept
            (gradient,) = torch.autograd.grad(score, activation)
        space = tuple(range(2, activation.ndim))
        weights = gradient.mean(dim=space, keepdim=True)
        cam = (weights * activation).sum(dim=1)[0].detach().float().cpu()
        return Explanation(
            label=label,
            map=cam,
            parameters={
                "layer": classifier.card.weights.cam_layer,
                "grid": " x ".join(str(size) for size in cam.shape),
            },
            seconds=time.perf_counter() - begun,
        )


def _differentiable(classifier: Classifier) -> torch.nn.Module:
    if classifier.network is None:
        raise UnsupportedMethodError(f"model '{classifier.card.name}' runs where there are no gradients")
    return classifier.network


@contextmanager
def _features(classifier: Classifier, network: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Keep the output of the CAM layer during one forward pass; the hook comes off whatever happens."""
    name = classifier.card.weights.cam_layer
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        raise ModelError(f"model '{classifier.card.name}' has no layer '{name}' (weights.cam_layer)") from None
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        yield kept
    finally:
        handle.remove()
