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
    (explanation,) = IntegratedGradients(steps=9, tolerance=0.0, precision="float32").explain(loaded, image, [1])
    change = float((loaded.network(image) - loaded.network(torch.zeros_like(image)))[0, 1])
    error = abs(float(explanation.map.sum()) - change) / abs(change)
    assert measure(explanation, "convergence-delta") == pytest.approx(error, abs=1e-4)
    assert measure(explanation, "samples") == 9


def test_values_agree_with_captum() -> None:
    loaded, image = classifier(Plain(channels=2), "4"), batch(2, 16, 16)
    (ours,) = IntegratedGradients(tolerance=0.0, steps=300, precision="float32").explain(loaded, image, [2])
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


def test_a_wider_blur_leaves_less_detail() -> None:
    found = references(batch(1, 32, 32), "blurs", 5)
    spreads = [float(each.std()) for each in found]
    assert spreads == sorted(spreads, reverse=True)


@pytest.mark.parametrize("wrong", [{"baseline": "white"}, {"tolerance": 2.0}, {"steps": 3}, {"precision": "x"}])
def test_a_wrong_parameter_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        IntegratedGradients(**wrong)
