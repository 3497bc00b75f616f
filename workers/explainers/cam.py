"""Class activation maps: what the last feature map contributed to a finding, place by place."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from service.errors import ModelError
from service.types import Attribution

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.types import Image
    from workers.interfaces import Classifier


class GradCam:
    """Gradient-weighted class activation mapping.

    Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV. The paper keeps the positive part only; the map here is signed (positive raised the
    probability, negative lowered it), and whoever draws it leaves the negative part out.
    """

    name = "grad-cam"
    title = "Grad-CAM"

    def explain(self, classifier: Classifier, image: Image, labels: Sequence[int]) -> list[Attribution]:
        """Explain each label for one image.

        Returns:
            One attribution a label: shape (rows, columns) of the source, signed, in arbitrary units.
        """
        return [self._explain(classifier, image, label) for label in labels]

    def _explain(self, classifier: Classifier, image: Image, label: int) -> Attribution:
        begun = time.perf_counter()
        batch = classifier.preprocess(image)
        with torch.enable_grad(), _features(classifier) as kept:
            score = classifier.network(batch.requires_grad_())[0, label]
            (activation,) = kept
            (gradient,) = torch.autograd.grad(score, activation)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        cam = (weights * activation).sum(dim=1)[0].detach().float()
        return Attribution(
            method=self.name,
            title=self.title,
            finding=classifier.card.labels[label].name,
            map=classifier.to_source(image, cam),
            parameters={
                "layer": classifier.card.weights.cam_layer,
                "grid": f"{cam.shape[0]} x {cam.shape[1]}",
            },
            seconds=time.perf_counter() - begun,
        )


@contextmanager
def _features(classifier: Classifier) -> Iterator[list[torch.Tensor]]:
    """Keep the output of the CAM layer during one forward pass; the hook comes off whatever happens."""
    name = classifier.card.weights.cam_layer
    try:
        layer = classifier.network.get_submodule(name)
    except AttributeError:
        raise ModelError(f"model '{classifier.card.name}' has no layer '{name}' (weights.cam_layer)") from None
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        yield kept
    finally:
        handle.remove()
