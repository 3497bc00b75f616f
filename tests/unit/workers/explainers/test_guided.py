from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import GuidedBackprop
from torch import nn
from white_box import Plain, Pooled, batch, classifier, drawn

from service.errors import UnsupportedMethodError
from workers.explainers.cam import GradCam
from workers.explainers.guided import GuidedGradCam, guided_backpropagation


@pytest.mark.parametrize("maximum", [False, True])
def test_guided_backpropagation_agrees_with_captum(maximum: bool) -> None:
    loaded, image = classifier(Plain(maximum=maximum), "4"), batch()
    ours = guided_backpropagation(loaded, image, [2, 0])
    for found, label in zip(ours, (2, 0), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum says that it hooks the modules
            theirs = GuidedBackprop(loaded.network).attribute(image.clone().requires_grad_(), target=label)
        torch.testing.assert_close(found, theirs[0].detach(), atol=1e-6, rtol=1e-5)


def test_the_map_is_grad_cam_times_the_guided_gradient() -> None:
    loaded, image = classifier(Pooled(channels=2)), batch(2, 16, 16)
    (explanation,) = GuidedGradCam().explain(loaded, image, [1])
    (cam,) = GradCam().explain(loaded, image, [1])
    guided = guided_backpropagation(loaded, image, [1])[0].sum(dim=0)
    # The features of this network lie on the input's grid, so nothing is resized.
    torch.testing.assert_close(explanation.map, cam.map.clamp_min(0) * guided, atol=1e-6, rtol=1e-4)


def test_a_network_without_relu_is_refused() -> None:
    network = drawn(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 3)), seed=0)
    with pytest.raises(UnsupportedMethodError, match="no ReLU"):
        GuidedGradCam().explain(classifier(network, "0"), batch(), [0])
