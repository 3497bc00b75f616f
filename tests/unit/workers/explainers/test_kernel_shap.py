from __future__ import annotations

import warnings
from itertools import permutations

import numpy as np
import pytest
import torch
from known_networks import Asked, Smooth, film

from workers.explainers.hiding import HiddenImage
from workers.explainers.kernel_shap import KernelShap, exact_shapley, regression
from workers.explainers.kriging import MOST
from workers.explainers.sampling import balanced_halves, every_coalition, leveraged, take
from workers.explainers.superpixels import superpixels


def game(regions: int, seed: int = 0) -> np.ndarray:
    """Answers to all coalitions, of no structure at all."""
    return np.random.default_rng(seed).normal(size=(2**regions, 2))


def by_definition(answers: np.ndarray) -> np.ndarray:
    """The mean contribution over all orders (Shapley 1953)."""
    count = len(answers).bit_length() - 1
    values = np.zeros((count, answers.shape[1]))
    orders = list(permutations(range(count)))
    for order in orders:
        inside = 0
        for region in order:
            values[region] += answers[inside | 1 << region] - answers[inside]
            inside |= 1 << region
    return values / len(orders)


@pytest.mark.parametrize("regions", [1, 2, 5])
def test_exact_values_equal_the_definition(regions: int) -> None:
    answers = game(regions)
    np.testing.assert_allclose(exact_shapley(answers), by_definition(answers), atol=1e-12)


@pytest.mark.parametrize("regions", [3, 6, 7])
def test_the_regression_over_all_coalitions_gives_the_exact_values(regions: int) -> None:
    answers = game(regions)
    inside = np.arange(1, 2**regions - 1)
    size = every_coalition(regions)[inside].sum(axis=1)
    inside, size = inside[2 * size <= regions], size[2 * size <= regions]
    # Every set as often as `leveraged` draws it: sizes equally often, half as often where both sets of a pair count.
    often = np.array([840 / (size == s).sum() / (2 if 2 * s == regions else 1) for s in size])
    chosen = np.repeat(inside, np.rint(often).astype(int))
    halves = (answers[chosen] - answers[2**regions - 1 - chosen]) / 2
    found = regression(every_coalition(regions)[chosen], halves, answers[-1] - answers[0])
    np.testing.assert_allclose(found.values, exact_shapley(answers), atol=1e-9)


@pytest.mark.parametrize("regions", [8, 11])
def test_an_additive_game_is_solved_without_error(regions: int) -> None:
    worth = np.random.default_rng(1).normal(size=(regions, 1))
    answers = every_coalition(regions) @ worth
    drawn = take(leveraged(regions, np.random.default_rng(2)), 40)
    halves = (drawn @ worth - (~drawn) @ worth) / 2
    found = regression(drawn, halves, answers[-1] - answers[0])
    np.testing.assert_allclose(found.values, worth, atol=1e-9)
    np.testing.assert_allclose(found.errors, 0.0, atol=1e-9)


def test_sampled_values_lie_within_their_intervals_and_add_up() -> None:
    answers = game(10, seed=4) * 0.3 + every_coalition(10) @ np.random.default_rng(5).normal(size=(10, 2))
    truth = exact_shapley(answers)
    bits = 1 << np.arange(10)
    hits = []
    for seed in range(20):
        drawn = take(leveraged(10, np.random.default_rng(seed)), 60)
        halves = (answers[drawn @ bits] - answers[(~drawn) @ bits]) / 2
        found = regression(drawn, halves, answers[-1] - answers[0])
        np.testing.assert_allclose(found.values.sum(axis=0), answers[-1] - answers[0], atol=1e-9)
        hits.append(np.abs(found.values - truth) <= 1.96 * found.errors)
    # 400 intervals at 95 %, somewhat dependent.
    assert 0.88 <= np.mean(hits) <= 0.995


def test_values_of_few_regions_are_exact() -> None:
    classifier, batch = Asked(inside=Smooth()), film()
    explanations = KernelShap(regions=9, samples=4096, replacement="mean").explain(classifier, batch, [1, 0])  # type: ignore[arg-type]
    regions = superpixels(batch, 9)
    count = int(regions.max()) + 1
    hidden = HiddenImage(classifier, batch, "mean")  # type: ignore[arg-type]
    truth = exact_shapley(hidden.by_regions(every_coalition(count), regions))
    for explanation, label in zip(explanations, (1, 0), strict=True):
        assert explanation.label == label
        np.testing.assert_allclose(explanation.map.numpy(), truth[regions, label], atol=1e-5)
        assert {m.name: m.value for m in explanation.measures} == {
            "samples": 2.0**count,
            "interval": 0.0,
            "ranking-stability": 1.0,
        }


def test_values_agree_with_the_program_of_the_methods_authors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("shap", reason="shap is absent (extra 'peers')")
    classifier, batch = Asked(inside=Smooth()), film(1)
    (explanation,) = KernelShap(regions=12, samples=600, stability=1.0, replacement="blur").explain(
        classifier, batch, [0]
    )  # type: ignore[arg-type]
    regions = superpixels(batch, 12)
    count = int(regions.max()) + 1
    hidden = HiddenImage(classifier, batch, "blur")  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer.KernelExplainer(
            lambda shown: hidden.by_regions(shown > 0.5, regions)[:, 0], np.zeros((1, count))
        ).shap_values(np.ones((1, count)), nsamples=2**count, silent=True, l1_reg=0)[0]
    ours = np.array([explanation.map.numpy()[regions == region][0] for region in range(count)])
    interval = next(m.value for m in explanation.measures if m.name == "interval")
    # Theirs is exact here, for all coalitions are asked; the mean half-width is nearly every region's.
    assert np.mean(np.abs(ours - theirs) <= 1.5 * interval + 1e-6) >= 0.9
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98
    np.testing.assert_allclose(ours.sum(), theirs.sum(), atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flipped_film_gives_the_flipped_map(axis: int) -> None:
    class Even(torch.nn.Module):
        """Sees no difference between an image and its flip along either axis, added to it."""

        def __init__(self) -> None:
            super().__init__()
            self.smooth = Smooth()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            flips = [batch, batch.flip(2), batch.flip(3), batch.flip(2, 3)]
            result: torch.Tensor = sum(self.smooth(flip) for flip in flips)
            return result

    classifier, batch = Asked(inside=Even()), film()
    explainer = KernelShap(regions=9, samples=4096)
    (straight,) = explainer.explain(classifier, batch, [0])  # type: ignore[arg-type]
    (flipped,) = explainer.explain(classifier, batch.flip(axis + 2), [0])  # type: ignore[arg-type]
    # Not to the last pixel: where two regions are equally near, one of them must take it.
    assert np.corrcoef(straight.map.flip(axis).flatten(), flipped.map.flatten())[0, 1] > 0.95


def test_the_seed_decides_and_nothing_else_does() -> None:
    classifier, batch = Asked(inside=Smooth()), film()
    first, again, other = (
        KernelShap(regions=20, samples=80, seed=seed).explain(classifier, batch, [0])[0].map  # type: ignore[arg-type]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sampling_stops_when_the_ranking_is_stable_or_the_samples_are_used_up() -> None:
    classifier, batch = Asked(inside=Smooth()), film()
    used = {}
    for stability in (0.5, 0.99, 1.0):
        (found,) = KernelShap(regions=20, samples=1000, stability=stability).explain(classifier, batch, [0])  # type: ignore[arg-type]
        measures = {m.name: m.value for m in found.measures}
        used[stability] = measures["samples"]
        assert measures["ranking-stability"] >= stability or measures["samples"] >= 999
    assert used[0.5] <= used[0.99] <= used[1.0] <= 1000
    assert used[0.5] < used[1.0]


@pytest.mark.parametrize(
    "wrong", [{"regions": 1}, {"samples": 3}, {"stability": 2.0}, {"replacement": "grey"}, {"seed": -1}]
)
def test_a_wrong_parameter_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KernelShap(**wrong)  # type: ignore[arg-type]


def test_coalitions_of_half_the_regions_leave_the_regression_true() -> None:
    answers = game(10, seed=4) * 0.3 + every_coalition(10) @ np.random.default_rng(5).normal(size=(10, 2))
    bits = 1 << np.arange(10)
    shown = np.concatenate(
        [
            take(balanced_halves(10, np.random.default_rng(0)), 256),
            take(leveraged(10, np.random.default_rng(0)), 4000),
        ]
    )
    differences = (answers[shown @ bits] - answers[~shown @ bits]) / 2
    found = regression(shown, differences, answers[-1] - answers[0], halves=256)
    np.testing.assert_allclose(found.values.sum(axis=0), answers[-1] - answers[0], atol=1e-9)
    np.testing.assert_allclose(found.values, exact_shapley(answers), atol=0.03)


def test_few_samples_and_many_give_nearly_the_same_values() -> None:
    classifier, batch = Asked(inside=Smooth()), film()
    few, many = (
        KernelShap(regions=20, samples=samples, stability=1.0).explain(classifier, batch, [0])[0].map  # type: ignore[arg-type]
        for samples in (MOST, 6 * MOST)
    )
    assert np.corrcoef(few.flatten(), many.flatten())[0, 1] > 0.98
