from __future__ import annotations

import pytest
import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import NoiseTunnel
from captum.attr import Saliency as CaptumSaliency
from scipy.stats import spearmanr
from white_box import Plain, Pooled, batch, classifier

from workers.explainers.copies import gradient_copy, rank_correlation
from workers.explainers.gradients import InputXGradient, Saliency, SmoothGrad
from workers.explainers.passes import Gradients


@pytest.mark.parametrize("channels", [1, 3])
def test_saliency_agrees_with_captum(channels: int) -> None:
    loaded, image = classifier(Plain(channels=channels), "4"), batch(channels, 16, 16)
    for label, explanation in zip((2, 0), Saliency().explain(loaded, image, (2, 0)), strict=True):
        theirs = CaptumSaliency(loaded.network).attribute(image.clone().requires_grad_(), target=label)
        torch.testing.assert_close(explanation.map, theirs[0].amax(dim=0))


def test_a_signed_gradient_says_where_brightness_raises_the_logit() -> None:
    loaded, image = classifier(Plain(), "4"), batch()
    (explanation,) = Saliency(sign="signed").explain(loaded, image, [1])
    row, column = divmod(int(explanation.map.abs().argmax()), 16)
    brighter = image.clone()
    brighter[0, 0, row, column] += 1e-2
    change = (loaded.network(brighter) - loaded.network(image))[0, 1] / 1e-2
    assert float(change) == pytest.approx(float(explanation.map[row, column]), rel=0.02)


def test_input_x_gradient_agrees_with_captum() -> None:
    loaded, image = classifier(Plain(channels=2), "4"), batch(2, 16, 16)
    (explanation,) = InputXGradient().explain(loaded, image, [1])
    theirs = CaptumInputXGradient(loaded.network).attribute(image.clone().requires_grad_(), target=1)
    torch.testing.assert_close(explanation.map, theirs[0].sum(dim=0), atol=1e-6, rtol=1e-5)


def test_smoothgrad_without_noise_is_saliency() -> None:
    loaded, image = classifier(Pooled()), batch()
    (smooth,) = SmoothGrad(samples=5, noise=0.0, precision="float32").explain(loaded, image, [0])
    (plain,) = Saliency().explain(loaded, image, [0])
    torch.testing.assert_close(smooth.map, plain.map, atol=1e-6, rtol=1e-4)


def test_smoothgrad_agrees_with_captum() -> None:
    loaded, image = classifier(Pooled()), batch()
    spread = 0.1 * float(image.max() - image.min())
    (ours,) = SmoothGrad(samples=400, stability=1.0, sign="signed", precision="float32").explain(loaded, image, [0])
    torch.manual_seed(0)
    theirs = NoiseTunnel(CaptumSaliency(loaded.network)).attribute(
        image, nt_samples=2000, nt_samples_batch_size=200, stdevs=spread, target=0, abs=False
    )
    assert spearmanr(ours.map.flatten(), theirs.flatten()).statistic > 0.97
    assert float((ours.map - theirs[0, 0]).abs().mean()) < 0.1 * float(theirs.abs().mean())


def test_mirrored_noise_leaves_less_of_itself_in_the_map() -> None:
    loaded, image = classifier(Pooled()), batch()
    many = SmoothGrad(samples=2000, stability=1.0, sign="signed", precision="float32")
    exact = many.explain(loaded, image, [0])[0].map
    mirrored, free = [], []
    for seed in range(1, 7):
        explainer = SmoothGrad(samples=16, stability=1.0, sign="signed", precision="float32", seed=seed)
        mirrored.append(float((explainer.explain(loaded, image, [0])[0].map - exact).square().mean()))
        inputs = image + torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 0.1 * float(
            image.max() - image.min()
        )
        parts = [found[0].sum(dim=0) for _, _, found in Gradients(loaded, (1, 16, 16), "float32")(inputs, [0])]
        free.append(float((sum(parts)[0] / 16 - exact).square().mean()))
    assert sum(mirrored) < sum(free)


def test_bfloat16_ranks_places_as_float32_does() -> None:
    loaded, image = classifier(Pooled(), side=32), batch(1, 32, 32)
    exact, fast = (
        SmoothGrad(samples=16, stability=1.0, precision=precision).explain(loaded, image, [0])[0]
        for precision in ("float32", "bfloat16")
    )
    assert fast.parameters["precision"] == "bfloat16"
    assert rank_correlation(exact.map, fast.map) > 0.97


def test_automatic_precision_is_one_of_the_two_and_is_recorded() -> None:
    loaded, image = classifier(Pooled()), batch()
    (explanation,) = SmoothGrad(samples=4, stability=1.0).explain(loaded, image, [0])
    assert explanation.parameters["precision"] in {"float32", "bfloat16"}


def test_a_copy_is_made_anew_when_weights_changed_behind_its_back() -> None:
    loaded = classifier(Pooled())
    first = gradient_copy(loaded.network, torch.float32, loaded.device)
    assert gradient_copy(loaded.network, torch.float32, loaded.device) is first
    loaded.network.conv1.weight.data.mul_(2.0)
    assert gradient_copy(loaded.network, torch.float32, loaded.device) is not first


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"noise": -1.0}, {"sign": "both"}, {"precision": "half"}, {"seed": "x"}, {"samples": 2.5}]
)
def test_a_wrong_parameter_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SmoothGrad(**wrong)
