from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from known_networks import Asked, Smooth, Spot, film

from workers.explainers.kernel_shap import exact_shapley
from workers.explainers.owen import Owen, Partition
from workers.explainers.superpixels import superpixels

TREE = [(0, 1), (2, 3), (5, 4), (6, 7)]
"""Over five regions: {0, 1} joins 4, {2, 3} joins that."""


def table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(32, 2))


def partition(answers: np.ndarray, tree: list[tuple[int, int]], backgrounds: int = 16, seed: int = 0) -> Partition:
    count = len(answers).bit_length() - 1
    bits = 1 << np.arange(count)
    return Partition(lambda shown: answers[shown @ bits], count, tree, backgrounds=backgrounds, seed=seed)


def by_definition(answers: np.ndarray, tree: list[tuple[int, int]]) -> np.ndarray:
    """The mean contribution over all orders in which no node of the tree is interrupted (Owen 1977, Winter 1989)."""
    count = len(answers).bit_length() - 1

    def orders(node: int) -> list[list[int]]:
        if node < count:
            return [[node]]
        left, right = (orders(part) for part in tree[node - count])
        return [a + b for a, b in product(left, right)] + [b + a for a, b in product(left, right)]

    values = np.zeros((count, answers.shape[1]))
    everything = orders(count + len(tree) - 1)
    for order in everything:
        inside = 0
        for region in order:
            values[region] += answers[inside | 1 << region] - answers[inside]
            inside |= 1 << region
    return values / len(everything)


def test_all_backgrounds_give_the_values_by_definition() -> None:
    answers = table()
    game = partition(answers, TREE)
    game.refine(samples=10_000, resolution=0.0)
    found = game.estimate()
    np.testing.assert_allclose(found.values, by_definition(answers, TREE), atol=1e-12)
    np.testing.assert_array_equal(found.errors, 0.0)


def test_two_regions_have_their_shapley_values() -> None:
    answers = table()[:4]
    game = partition(answers, [(0, 1)])
    game.refine(samples=100, resolution=0.0)
    np.testing.assert_allclose(game.estimate().values, exact_shapley(answers), atol=1e-12)


@pytest.mark.parametrize("samples", [2, 7, 20, 60])
def test_values_add_up_at_every_stage(samples: int) -> None:
    answers = table(1)
    game = partition(answers, TREE, backgrounds=2)
    game.refine(samples=samples, resolution=0.0)
    np.testing.assert_allclose(game.estimate().values.sum(axis=0), answers[-1] - answers[0], atol=1e-12)
    assert game.asked <= samples


def test_few_backgrounds_are_right_on_average() -> None:
    answers = table(2)
    found = []
    for seed in range(600):
        game = partition(answers, TREE, backgrounds=2, seed=seed)
        game.refine(samples=10_000, resolution=0.0)
        found.append(game.estimate().values)
    np.testing.assert_allclose(np.mean(found, axis=0), by_definition(answers, TREE), atol=0.12)


def test_a_part_that_does_nothing_is_never_split() -> None:
    classifier = Asked(inside=Spot(8, 16, 8))
    (found,) = Owen(regions=40, replacement="mean").explain(classifier, film(), [0])  # type: ignore[arg-type]
    assert int(found.parameters["parts"]) < 20
    # The far half of the film has no part in the answer.
    assert found.map[:, 48:].abs().max() < 1e-5
    assert found.map[8:16, 16:24].abs().max() == found.map.abs().max()


def test_values_add_up_to_what_the_image_adds() -> None:
    classifier, batch = Asked(inside=Smooth()), film()
    explanations = Owen(regions=30, samples=150, replacement="mean").explain(classifier, batch, [0, 1])  # type: ignore[arg-type]
    whole = classifier.logits(batch) - classifier.logits(batch.mean().expand_as(batch))
    index = superpixels(batch, 30)
    for label, explanation in enumerate(explanations):
        values = [explanation.map.numpy()[index == region][0] for region in range(int(index.max()) + 1)]
        assert len(set(values)) > 5
        assert {m.name: m.value for m in explanation.measures}["samples"] <= 150
        assert sum(values) == pytest.approx(whole[0, label].item(), abs=1e-4)


@pytest.mark.parametrize("wrong", [{"backgrounds": 3}, {"backgrounds": 1}, {"regions": 0}, {"resolution": -1.0}])
def test_a_wrong_parameter_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Owen(**wrong)  # type: ignore[arg-type]
