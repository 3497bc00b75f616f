from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from films import as_image
from torch import nn
from white_box import classifier

from service.errors import ModelError, UnsupportedMethodError
from workers.explainers.cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.models.package import PackagedClassifier


class Small(nn.Module):
    """Two channels, pooled, one label: Grad-CAM of it can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[3.0, 0.5]]))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.features(batch).mean(dim=(2, 3)))
        return result


def small(cam_layer: str = "features") -> PackagedClassifier:
    return classifier(Small().eval().requires_grad_(requires_grad=False), cam_layer, labels=("Pneumonia",))


def film(rows: int = 40, columns: int = 30) -> NDArray[np.float32]:
    grey = np.random.default_rng(1).random((rows, columns), dtype=np.float32) * 0.2
    grey[5:12, 18:26] = 1.0
    return grey


def test_the_map_equals_the_definition() -> None:
    loaded = small()
    batch = loaded.preprocess(as_image(film()))
    (explanation,) = GradCam().explain(loaded, batch, [0])
    # gradient of the mean is 1/n in every place: weights 3/n and 0.5/n for features x and -2x
    expected = (3.0 * batch - 2.0 * 0.5 * batch)[0, 0] / batch[0, 0].numel()
    torch.testing.assert_close(explanation.map, expected, atol=1e-6, rtol=0)
    assert explanation.label == 0


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flipped_film_gives_the_flipped_map(axis: int) -> None:
    loaded = small()
    batch = loaded.preprocess(as_image(film()))
    (straight,) = GradCam().explain(loaded, batch, [0])
    (flipped,) = GradCam().explain(loaded, batch.flip(axis + 2), [0])
    torch.testing.assert_close(straight.map.flip(axis), flipped.map, atol=1e-5, rtol=0)


def test_the_network_is_as_it_was_and_no_hook_stays() -> None:
    loaded = small()
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    GradCam().explain(loaded, loaded.preprocess(as_image(film())), [0])
    assert all(torch.equal(value, before[name]) for name, value in loaded.network.state_dict().items())
    assert not any(module._forward_hooks for module in loaded.network.modules())
    assert all(parameter.grad is None for parameter in loaded.network.parameters())


def test_the_same_film_gives_the_same_map() -> None:
    loaded = small()
    batch = loaded.preprocess(as_image(film()))
    first, second = (GradCam().explain(loaded, batch, [0])[0].map for _ in range(2))
    assert torch.equal(first, second)


def test_a_layer_that_does_not_exist_is_named() -> None:
    loaded = small("nowhere")
    with pytest.raises(ModelError, match="no layer 'nowhere'"):
        GradCam().explain(loaded, loaded.preprocess(as_image(film())), [0])


def features_and_gradient(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of `Small`, (2, rows, columns), and the gradient of its logit by them, (2, 1, 1)."""
    features = torch.stack([batch[0, 0], -2.0 * batch[0, 0]])
    return features, torch.tensor([3.0, 0.5]).view(2, 1, 1) / batch[0, 0].numel()


def test_hires_cam_sums_to_the_logit() -> None:
    loaded = small()
    batch = loaded.preprocess(as_image(film()))
    (explanation,) = HiResCam().explain(loaded, batch, [0])
    assert float(explanation.map.sum()) == pytest.approx(float(loaded.network(batch)), abs=1e-5)


def test_layer_cam_shows_active_features_whose_gradient_is_positive() -> None:
    loaded = small()
    loaded.network.head.weight[0, 1] = -0.5
    batch = loaded.preprocess(as_image(film()))
    (explanation,) = LayerCam().explain(loaded, batch, [0])
    torch.testing.assert_close(explanation.map, 3.0 * batch[0, 0] / batch[0, 0].numel(), atol=1e-6, rtol=0)


def test_grad_cam_plus_plus_equals_its_equation() -> None:
    loaded = small()
    batch = loaded.preprocess(as_image(film()))
    (explanation,) = GradCamPlusPlus().explain(loaded, batch, [0])
    features, gradient = features_and_gradient(batch)
    gradient = gradient.expand_as(features)
    alpha = gradient**2 / (2 * gradient**2 + features.sum(dim=(1, 2), keepdim=True) * gradient**3)
    weights = (alpha * gradient.clamp_min(0)).sum(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(explanation.map, (weights * features).sum(dim=0), atol=1e-5, rtol=1e-4)


def test_another_layer_can_be_named() -> None:
    loaded = small("nowhere")
    (explanation,) = LayerCam(layer="features").explain(loaded, loaded.preprocess(as_image(film())), [0])
    assert explanation.parameters["layer"] == "features"


def test_a_layer_without_places_is_refused() -> None:
    loaded = small("head")
    with pytest.raises(UnsupportedMethodError, match="no places"):
        GradCam().explain(loaded, loaded.preprocess(as_image(film())), [0])
