from __future__ import annotations

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from white_box import Plain, Pooled, batch, classifier

from workers.explainers.baselines import BASELINES, REFERENCES, baseline, references
from workers.explainers.integrated_gradients import IntegratedGradients


def measure(explanation: object, name: str) -> float:
    return next(found.value for found in explanation.measures if found.name == name)


@pytest.mark.parametrize("kind", BASELINES)
def test_the_map_sums_to_the_change_of_the_logit_within_one_per_cent(kind: str) -> None:
    loaded, image = classifier(Pooled()), batch()
    found = IntegratedGradients(baseline=kind, precision="float32").explain(loaded, image, (0, 1, 2))
    changes = (loaded.network(image) - loaded.network(baseline(image, kind)))[0]
    for explanation, change in zip(found, changes, strict=True):
        assert abs(float(explanation.map.sum()) - float(change)) <= 0.0101 * max(abs(float(change)), 1e-3)
        assert measure(explanation, "convergence-delta") <= 0.01


def test_the_reported_delta_is_the_true_one() -> None:
    loaded, image = classifier(Plain(), "4"), batch()
    (explanation,) = IntegratedGradients(baseline="zero", steps=9, tolerance=0.0, precision="float32").explain(
        loaded, image, [1]
    )
    change = float((loaded.network(image) - loaded.network(torch.zeros_like(image)))[0, 1])
    error = abs(float(explanation.map.sum()) - change) / abs(change)
    assert measure(explanation, "convergence-delta") == pytest.approx(error, abs=1e-4)
    assert measure(explanation, "samples") == 9


def test_values_agree_with_captum() -> None:
    loaded, image = classifier(Plain(channels=2), "4"), batch(2, 16, 16)
    (ours,) = IntegratedGradients(baseline="zero", tolerance=0.0, steps=300, precision="float32").explain(
        loaded, image, [2]
    )
    theirs = CaptumIntegratedGradients(loaded.network).attribute(image, target=2, n_steps=1000, internal_batch_size=250)
    expected = theirs[0].sum(dim=0).float()
    torch.testing.assert_close(ours.map, expected, atol=0.01 * float(expected.abs().max()), rtol=0)


def test_an_easy_image_takes_fewer_steps_than_a_hard_one() -> None:
    loaded, image = classifier(Plain(), "4"), batch()
    easy = IntegratedGradients(tolerance=0.2, precision="float32").explain(loaded, image, [0])[0]
    hard = IntegratedGradients(tolerance=0.001, precision="float32").explain(loaded, image, [0])[0]
    assert measure(easy, "samples") < measure(hard, "samples") <= 129


def test_a_label_that_is_explained_alone_or_beside_others_gets_the_same_sum() -> None:
    loaded, image = classifier(Pooled()), batch()
    alone = IntegratedGradients(precision="float32").explain(loaded, image, [1])[0].map
    beside = IntegratedGradients(precision="float32").explain(loaded, image, [0, 1])[1].map
    assert float(alone.sum()) == pytest.approx(float(beside.sum()), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kind", REFERENCES)
def test_references_lie_within_the_range_of_the_image_and_differ(axes: int, kind: str) -> None:
    image = batch(2, *[12] * axes)
    found = references(image, kind, 4)
    assert found.shape == (4, 2, *[12] * axes)
    assert float(found.max()) <= float(image.max()) + 1e-5
    assert float(found.min()) >= float(image.min()) - 1e-5
    assert len({round(float(each.sum()), 3) for each in found}) == 4


def test_darker_references_hide_more() -> None:
    image = batch(1, 32, 32)
    hidden = [float((image - each).sum()) for each in references(image, "darks", 5)]
    assert hidden == sorted(hidden, reverse=True)
    # The last one is what the other methods hide with.
    torch.testing.assert_close(references(image, "darks", 2)[1:], baseline(image, "dark"))


def test_one_bend_between_two_points_is_found_from_the_logits() -> None:
    class Bent(torch.nn.Module):
        """Linear until a third of the way from zero to the image, and steeper from there."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1)
            torch.nn.init.ones_(self.conv.weight)
            torch.nn.init.zeros_(self.conv.bias)
            self.requires_grad_(requires_grad=False)

        def forward(self, films: torch.Tensor) -> torch.Tensor:
            total = self.conv(films).sum(dim=(1, 2, 3))
            return (total + 4 * torch.relu(total - 85.0))[:, None]

    image = torch.ones(1, 1, 16, 16)
    explainer = IntegratedGradients(baseline="zero", steps=9, tolerance=0.0, precision="float32")
    (found,) = explainer.explain(classifier(Bent().eval(), "conv"), image, [0])
    torch.testing.assert_close(found.map, torch.full((16, 16), (256 + 4 * 171) / 256), rtol=1e-4, atol=0)
    assert measure(found, "convergence-delta") < 1e-4


def test_a_wider_blur_leaves_less_detail() -> None:
    found = references(batch(1, 32, 32), "blurs", 5)
    spreads = [float(each.std()) for each in found]
    assert spreads == sorted(spreads, reverse=True)


@pytest.mark.parametrize("wrong", [{"baseline": "white"}, {"tolerance": 2.0}, {"steps": 3}, {"precision": "x"}])
def test_a_wrong_parameter_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        IntegratedGradients(**wrong)
