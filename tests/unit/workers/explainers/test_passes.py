from __future__ import annotations

import gc

import pytest
import torch
from torch import nn
from white_box import Pooled, at_most, batch, classifier

from service.errors import UnsupportedMethodError
from workers.explainers.cam import GradCam, HiResCam
from workers.explainers.copies import gradient_copy
from workers.explainers.gradients import InputXGradient, Saliency, SmoothGrad
from workers.explainers.passes import Gradients, shared_pass


class Counted(nn.Module):
    """Counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = Pooled()
        self.passes = 0
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        logits: torch.Tensor = self.inside(x)
        return logits


def test_methods_of_one_image_share_one_forward_pass() -> None:
    network = Counted()
    loaded, image = classifier(network, "inside.features"), batch()
    for explainer in (GradCam(), HiResCam(), Saliency(), InputXGradient()):
        explainer.explain(loaded, image, [0, 1])
    assert network.passes == 1
    Saliency().explain(loaded, batch(seed=1), [0])
    assert network.passes == 2


def test_an_image_that_was_written_to_is_looked_at_again() -> None:
    loaded, image = classifier(Pooled()), batch()
    before = Saliency().explain(loaded, image, [0])[0].map
    image.mul_(-1.0)
    assert not torch.equal(Saliency().explain(loaded, image, [0])[0].map, before)


@pytest.mark.parametrize("change", ["scale", "shuffle"])
def test_weights_that_changed_are_looked_at_again(change: str) -> None:
    loaded, image = classifier(Pooled()), batch()
    before = Saliency().explain(loaded, image, [0])[0].map
    weight = loaded.network.conv2.weight.data
    if change == "scale":
        weight.mul_(1.5)
    else:
        weight.copy_(weight.flatten().flip(0).reshape(weight.shape))
    assert not torch.equal(Saliency().explain(loaded, image, [0])[0].map, before)


def test_what_an_image_needed_is_freed_with_it() -> None:
    loaded, image = classifier(Pooled()), batch()
    made = torch.utils.weak.weakref.ref(shared_pass(loaded, image))
    assert made() is not None
    del image
    gc.collect()
    assert made() is None


def gradients_of(loaded: object, inputs: torch.Tensor) -> torch.Tensor:
    found = Gradients(loaded, inputs.shape[1:], "float32")(inputs, [0, 2])
    return torch.cat([part for _, _, part in found], dim=1)


def test_batches_are_halved_until_they_fit() -> None:
    inputs = batch(1, 16, 16).repeat(11, 1, 1, 1) * torch.linspace(0.1, 1, 11).view(-1, 1, 1, 1)
    loaded = classifier(Pooled())
    gradient_copy(loaded.network, torch.float32, loaded.device).network.conv1.register_forward_pre_hook(at_most(3))
    torch.testing.assert_close(gradients_of(loaded, inputs), gradients_of(classifier(Pooled()), inputs))


def test_without_memory_for_one_input_the_method_is_refused_in_words() -> None:
    loaded = classifier(Pooled())
    gradient_copy(loaded.network, torch.float32, loaded.device).network.conv1.register_forward_pre_hook(at_most(0))
    with pytest.raises(UnsupportedMethodError, match="not enough memory"):
        SmoothGrad(precision="float32").explain(loaded, batch(), [0])


def test_without_memory_for_the_shared_pass_the_method_is_refused_and_no_hook_stays() -> None:
    loaded = classifier(Pooled())
    handle = loaded.network.conv1.register_forward_pre_hook(at_most(0))
    with pytest.raises(UnsupportedMethodError, match="not enough memory"):
        GradCam().explain(loaded, batch(), [0])
    handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.network.modules())


def test_another_error_is_not_taken_for_lack_of_memory() -> None:
    loaded = classifier(Pooled())
    with pytest.raises(RuntimeError, match="channels"):
        SmoothGrad(samples=2, precision="float32").explain(loaded, batch(3, 16, 16), [0])
