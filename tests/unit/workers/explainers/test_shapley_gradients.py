from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import DeepLift, DeepLiftShap
from captum.attr import GradientShap as CaptumGradientShap
from torch import nn
from white_box import Gated, Plain, Pooled, at_most, batch, classifier, drawn

from service.errors import UnsupportedMethodError
from workers.explainers.baselines import references
from workers.explainers.copies import graph_copy
from workers.explainers.passes import Gradients
from workers.explainers.shapley_gradients import DeepShap, GradientShap, deep_shap
from workers.models.graphs import build_graph


def test_one_baseline_agrees_with_captums_deeplift() -> None:
    loaded, image = classifier(Plain(), "4"), batch()
    start = batch(seed=1) * 0.3
    ours, change = deep_shap(loaded, image, start, [1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum says that it hooks the modules
        theirs = DeepLift(loaded.network).attribute(image, start, target=1).detach()
    torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)
    expected = (loaded.network(image) - loaded.network(start))[0, 1]
    assert float(change) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("image", "start", "expected"),
    [
        ([3.0, 1.0], [0.0, 2.0], [1.0, 0.0]),  # the winner changes: what is gained is the new one's
        ([1.0, 0.0], [0.0, 3.0], [0.0, -2.0]),  # what is lost is the old one's
        ([3.0, 2.0], [0.0, 1.0], [2.0, 0.0]),
    ],
)
def test_a_largest_value_is_shared_by_those_who_win(
    image: list[float], start: list[float], expected: list[float]
) -> None:
    network = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten()).eval()
    one, other = (torch.tensor(values).view(1, 1, 1, 2) for values in (image, start))
    ours, _ = deep_shap(classifier(network, "0"), one, other, [0])
    torch.testing.assert_close(ours.flatten(), torch.tensor(expected))


def test_pooling_by_the_largest_value_loses_nothing() -> None:
    # captum's sum is off by a third here.
    loaded, image, start = classifier(Plain(maximum=True), "4"), batch(), batch(seed=1) * 0.3
    ours, change = deep_shap(loaded, image, start, [1])
    assert float(ours.sum()) == pytest.approx(float((loaded.network(image) - loaded.network(start))[0, 1]), rel=1e-4)
    assert float(change) == pytest.approx(float(ours.sum()), rel=1e-4)


def test_several_baselines_agree_with_captums_deeplift_shap() -> None:
    loaded, image = classifier(Plain(channels=2), "4"), batch(2, 16, 16)
    starts = torch.cat([batch(2, 16, 16, seed=seed) * 0.5 for seed in range(1, 7)])
    ours, _ = deep_shap(loaded, image, starts, [0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DeepLiftShap(loaded.network).attribute(image, starts, target=0).detach()
    torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("graph", ["resnet-compact", "resnet18", "densenet121"])
def test_deep_shap_sums_to_the_change_of_the_logit(graph: str) -> None:
    # ResNet and DenseNet pool by the largest value of windows that overlap, where captum's sum goes wrong.
    network = drawn(build_graph(graph, labels=2), seed=5)
    image = batch(1, 64, 64)
    (explanation,) = DeepShap(baselines=3).explain(classifier(network, side=64), image, [1])
    starts = references(image, "darks", 3)
    change = float((network(image) - network(starts).mean(dim=0))[0, 1])
    assert float(explanation.map.sum()) == pytest.approx(change, rel=0.01)
    assert explanation.measures[0].value <= 0.01


def test_gradient_shap_agrees_with_captum_over_many_samples() -> None:
    loaded, image = classifier(Pooled()), batch()
    starts = references(image, "blurs", 4)
    explainer = GradientShap(samples=2000, stability=1.0, references="blurs", baselines=4, precision="float32")
    (ours,) = explainer.explain(loaded, image, [0])
    torch.manual_seed(0)
    theirs = CaptumGradientShap(loaded.network).attribute(
        image.expand(20, -1, -1, -1), baselines=starts, target=0, n_samples=60, stdevs=0.0
    )
    expected = theirs.mean(dim=0)[0].float()
    assert float((ours.map - expected).abs().mean()) < 0.05 * float(expected.abs().mean())


def test_spread_points_leave_a_smaller_error_than_points_drawn_anyhow() -> None:
    loaded, image = classifier(Pooled()), batch()
    starts = references(image, "blurs", 8)
    options = {"stability": 1.0, "references": "blurs", "precision": "float32"}
    exact = GradientShap(samples=2048, **options).explain(loaded, image, [0])[0].map
    spread, free = [], []
    for seed in range(1, 5):
        (ours,) = GradientShap(samples=32, seed=seed, **options).explain(loaded, image, [0])
        spread.append(float((ours.map - exact).square().mean()))
        generator = torch.Generator().manual_seed(seed)
        chosen = starts[torch.randint(8, (32,), generator=generator)]
        points = chosen + torch.rand(32, 1, 1, 1, generator=generator) * (image - chosen)
        found = torch.cat([part[0] for _, _, part in Gradients(loaded, (1, 16, 16), "float32")(points, [0])])
        free.append(float(((found * (image - chosen)).mean(dim=0)[0] - exact).square().mean()))
    assert sum(spread) < 0.5 * sum(free)


def test_gradient_shap_sums_to_the_change_of_the_logit() -> None:
    loaded, image = classifier(Pooled()), batch()
    explainer = GradientShap(samples=512, stability=1.0, references="blurs", precision="float32")
    (explanation,) = explainer.explain(loaded, image, [2])
    change = float((loaded.network(image) - loaded.network(references(image, "blurs", 8)).mean(dim=0))[0, 2])
    assert float(explanation.map.sum()) == pytest.approx(change, rel=0.02, abs=1e-3)


def test_with_memory_for_two_baselines_at_a_time_the_map_is_the_same() -> None:
    image = batch()
    starts = references(image, "blurs", 5)
    much, _ = deep_shap(classifier(Pooled()), image, starts, [0])
    loaded = classifier(Pooled())
    graph_copy(loaded, loaded.device).get_submodule("conv1").register_forward_pre_hook(at_most(4))
    little, _ = deep_shap(loaded, image, starts, [0])
    torch.testing.assert_close(little, much, atol=1e-6, rtol=1e-4)


def test_without_memory_for_one_baseline_the_method_is_refused_in_words() -> None:
    loaded = classifier(Pooled())
    graph_copy(loaded, loaded.device).get_submodule("conv1").register_forward_pre_hook(at_most(1))
    with pytest.raises(UnsupportedMethodError, match="not enough memory"):
        DeepShap().explain(loaded, batch(), [0])


def test_an_operation_that_differences_cannot_go_through_is_named() -> None:
    with pytest.raises(UnsupportedMethodError, match="sigmoid"):
        DeepShap().explain(classifier(drawn(Gated(), seed=0), "conv"), batch(), [0])


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (GradientShap, {"samples": 0}),
        (GradientShap, {"references": "films"}),
        (GradientShap, {"noise": -0.1}),
        (GradientShap, {"seed": -1}),
        (DeepShap, {"baselines": 0}),
        (DeepShap, {"references": 3}),
    ],
)
def test_a_wrong_parameter_is_named(make: type, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make(**wrong)


def test_it_stops_when_a_repeat_would_agree_and_says_so() -> None:
    loaded, image = classifier(Pooled()), batch()
    sure, unsure = (
        GradientShap(samples=256, stability=stability, precision="float32").explain(loaded, image, [0])[0]
        for stability in (0.99, 0.3)
    )
    figures = [{measure.name: measure.value for measure in found.measures} for found in (sure, unsure)]
    assert figures[0]["samples"] > figures[1]["samples"]
    assert figures[0]["stability-sampling"] >= 0.99 or figures[0]["samples"] == 256
