from __future__ import annotations

import math

import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import nn
from white_box import LABELS, Gated, Plain, Pooled, batch, classifier, drawn

from service.errors import UnsupportedMethodError
from workers.explainers.relevance import LrpAlphaBeta, LrpComposite, LrpEpsilon, LrpGamma
from workers.explainers.relevance_flow import Composite, propagate
from workers.explainers.relevance_rules import AlphaBeta, Epsilon, Flat, Gamma, Operation, Rule, Sums, redistribute
from workers.models.graphs import build_graph

EXPLAINERS = {
    "composite": LrpComposite(),
    "epsilon": LrpEpsilon(),
    "gamma": LrpGamma(),
    "alpha 1": LrpAlphaBeta(),
    "alpha 1.2": LrpAlphaBeta(alpha=1.2),
}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Epsilon(epsilon=1e-9), lambda: EpsilonRule(epsilon=1e-9)),
        (Gamma(gamma=0.25), lambda: GammaRule(gamma=0.25, set_bias_to_zero=True)),
        (AlphaBeta(alpha=1.0), lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True)),
    ],
    ids=["epsilon", "gamma", "alpha-beta"],
)
def test_every_rule_agrees_with_captum_on_a_plain_network(ours: Rule, theirs: object) -> None:
    # captum's gamma and alpha-beta are for inputs above 0, and it loses what biases contribute: neither is here.
    layers = [nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.ReLU(), nn.Flatten()]
    network = drawn(nn.Sequential(*layers, nn.Linear(5 * 144, 3, bias=False)), seed=4)
    image = batch(positive=True)
    # captum's gamma rule knows no mirror image for sums below 0.
    network[-1].weight.mul_(network(image)[0].sign()[:, None])
    label = int(network(image).argmax())
    assert float(network(image)[0, label]) > 0
    found = propagate(
        torch.fx.symbolic_trace(network),
        image,
        torch.eye(network[-1].out_features)[[label]],
        Composite(first=ours, convolution=ours, dense=ours),
    )
    # captum refuses Flatten, so its twin flattens in its forward pass.
    twin = Flattening(network)
    for layer in (twin.first, twin.second, twin.last):
        layer.rule = theirs()
    with torch.enable_grad():
        expected = LRP(twin).attribute(image.clone().requires_grad_(), target=label).detach()
    torch.testing.assert_close(found, expected, atol=2e-4 * float(expected.abs().max()), rtol=0)


class Flattening(nn.Module):
    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.first, self.relu1, self.second, self.relu2, _, self.last = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.relu2(self.second(self.relu1(self.first(x))))
        logits: torch.Tensor = self.last(maps.reshape(len(maps), -1))
        return logits


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("graph", ["resnet-compact", "resnet50", "densenet121"])
def test_relevance_is_conserved_within_one_per_cent(graph: str, name: str) -> None:
    network = drawn(build_graph(graph, labels=2), seed=5)
    image = batch(1, 64, 64)
    logits = network(image)[0]
    loaded = classifier(network, side=64)
    for label, explanation in enumerate(EXPLAINERS[name].explain(loaded, image, [0, 1])):
        whole = float(explanation.map.abs().sum())
        error = abs(float(explanation.map.sum()) - float(logits[label]))
        assert error <= 0.01 * max(abs(float(logits[label])), 1e-3 * whole)
        (conservation,) = explanation.measures
        assert conservation.value <= 0.01
        assert float(explanation.map.std()) > 0


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_volume_of_several_channels_is_explained_too(name: str) -> None:
    loaded = classifier(Pooled(axes=3, channels=2))
    image = batch(2, 6, 8, 10)
    (explanation,) = EXPLAINERS[name].explain(loaded, image, [1])
    assert explanation.map.shape == (6, 8, 10)
    assert float(explanation.map.sum()) == pytest.approx(float(loaded.network(image)[0, 1]), rel=0.01)


@pytest.mark.parametrize("maximum", [False, True])
def test_pools_and_biases_lose_nothing(maximum: bool) -> None:
    loaded, image = classifier(Plain(maximum=maximum), "4"), batch()
    for label, explanation in enumerate(LrpComposite().explain(loaded, image, range(len(LABELS)))):
        assert float(explanation.map.sum()) == pytest.approx(float(loaded.network(image)[0, label]), rel=1e-3)


def test_epsilon_without_bias_is_input_times_gradient() -> None:
    loaded, image = classifier(Plain(bias=False), "4"), batch()
    (explanation,) = LrpEpsilon(epsilon=0.0).explain(loaded, image, [0])
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loaded.network(leaf)[0, 0], leaf)
    torch.testing.assert_close(explanation.map, (gradient * image)[0, 0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("rule", [Epsilon(epsilon=0.1), Gamma(gamma=1.0), AlphaBeta(alpha=2.0), Flat()])
def test_each_rule_hands_on_all_that_it_gets(rule: Rule) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator)
    weight[3] = 0.0  # an output that nothing but its bias made
    bias = torch.randn(5, generator=generator)
    inputs, relevance = torch.randn(2, 7, generator=generator), torch.randn(2, 5, generator=generator)
    operation = Operation(apply=torch.nn.functional.linear, weight=weight, bias=bias)
    shares = redistribute(rule, operation, inputs, relevance)
    torch.testing.assert_close(shares.sum(dim=1), relevance.sum(dim=1), atol=1e-4, rtol=1e-4)


def test_the_flat_rule_tells_no_inputs_apart() -> None:
    operation = Operation(
        apply=torch.nn.functional.linear, weight=torch.tensor([[5.0, -1.0, 0.0, 2.0]]), bias=torch.zeros(1)
    )
    shares = redistribute(Flat(), operation, torch.tensor([[1.0, -3.0, 0.0, 7.0]]), torch.tensor([[2.0]]))
    torch.testing.assert_close(shares, torch.full((1, 4), 0.5))


def test_alpha_two_gives_the_supporters_twice_what_all_get() -> None:
    operation = Operation(
        apply=torch.nn.functional.linear, weight=torch.tensor([[3.0, 1.0, -2.0]]), bias=torch.zeros(1)
    )
    shares = redistribute(AlphaBeta(alpha=2.0), operation, torch.ones(1, 3), torch.ones(1, 1))
    torch.testing.assert_close(shares, torch.tensor([[1.5, 0.5, -1.0]]))


SUMS = Sums(
    positive=torch.tensor([3.0, 1.0, 3.0]),
    negative=torch.tensor([-1.0, -3.0, -1.0]),
    bias=torch.tensor([0.0, 0.0, 1.0]),
)
"""Of three outputs: 2, -2, and 3 with a bias of 1."""


def test_epsilon_moves_every_sum_away_from_zero_by_its_share_of_their_root_mean_square() -> None:
    up, down = Epsilon(epsilon=0.5).factors(SUMS, torch.ones(3))
    damping = 0.5 * math.sqrt((4 + 4 + 9) / 3)
    torch.testing.assert_close(up, torch.tensor([1 / (2 + damping), -1 / (2 + damping), 1 / (3 + damping)]))
    assert torch.equal(up, down)


def test_gamma_favours_what_has_the_sign_of_the_sum() -> None:
    up, down = Gamma(gamma=1.0).factors(SUMS, torch.ones(3))
    torch.testing.assert_close(up, torch.tensor([2 / 5, -1 / 5, 2 / 7]))
    torch.testing.assert_close(down, torch.tensor([1 / 5, -2 / 5, 1 / 7]))


@pytest.mark.parametrize(
    ("explainer", "first", "convolution", "dense"),
    [
        (LrpComposite(), Flat(), AlphaBeta(alpha=1.0), Epsilon(epsilon=0.0)),
        (LrpEpsilon(), Epsilon(epsilon=0.25), Epsilon(epsilon=0.25), Epsilon(epsilon=0.25)),
        (LrpGamma(), Gamma(gamma=0.25), Gamma(gamma=0.25), Epsilon(epsilon=0.0)),
        (LrpAlphaBeta(alpha=2.0), AlphaBeta(alpha=2.0), AlphaBeta(alpha=2.0), Epsilon(epsilon=0.0)),
    ],
    ids=["lrp", "lrp-epsilon", "lrp-gamma", "lrp-alpha-beta"],
)
def test_each_method_has_the_rules_that_its_document_tells(
    explainer: LrpComposite, first: Rule, convolution: Rule, dense: Rule
) -> None:
    loaded, image = classifier(Plain(), "4"), batch()
    (explanation,) = explainer.explain(loaded, image, [0])
    rules = Composite(first=first, convolution=convolution, dense=dense)
    first_label = torch.eye(len(loaded.card.labels))[[0]]
    expected = propagate(torch.fx.symbolic_trace(loaded.network), image, first_label, rules)[0, 0]
    torch.testing.assert_close(explanation.map, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)


def test_an_operation_without_a_rule_is_named() -> None:
    with pytest.raises(UnsupportedMethodError, match="mul"):
        LrpComposite().explain(classifier(drawn(Gated(), seed=0), "conv"), batch(), [0])


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (LrpComposite, {"epsilon": -1.0}),
        (LrpEpsilon, {"epsilon": "x"}),
        (LrpGamma, {"gamma": float("nan")}),
        (LrpAlphaBeta, {"alpha": 0.5}),
    ],
)
def test_a_wrong_parameter_is_named(make: type, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make(**wrong)
