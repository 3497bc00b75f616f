from __future__ import annotations

import numpy as np
import pytest

from workers.explainers.kernel_shap import exact_shapley, interpolated, regression
from workers.explainers.kriging import LENGTH, Kriging, LimeMeans, shapley_of_kernel
from workers.explainers.lime import interpolated as lime_of_all
from workers.explainers.lime import surrogate
from workers.explainers.sampling import balanced_halves, every_coalition, leveraged, take

WIDTH, RIDGE = 0.25, 0.001


def kernel(shown: np.ndarray) -> np.ndarray:
    """The process's covariance of every coalition with those shown, (all coalitions, shown)."""
    different = (every_coalition(shown.shape[1])[:, None] != shown[None]).mean(axis=2)
    covariance: np.ndarray = np.exp(-2 * different / LENGTH)
    return covariance


def smooth_game(regions: int, seed: int) -> np.ndarray:
    """Answers to all coalitions of a game in which regions act together, (2 ** regions, 1)."""
    rng = np.random.default_rng(seed)
    shown = every_coalition(regions).astype(float)
    worth, together = rng.normal(size=(regions, 1)), rng.normal(size=(regions, regions)) / regions
    answers: np.ndarray = np.tanh(shown @ worth + (shown @ together * shown).sum(axis=1, keepdims=True)) * 3
    return answers


def asked(answers: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The answers to coalitions and their complements, (pairs, 2, 1)."""
    bits = 1 << np.arange(drawn.shape[1])
    found: np.ndarray = np.stack([answers[drawn @ bits], answers[~drawn @ bits]], axis=1)
    return found


@pytest.mark.parametrize("regions", [1, 2, 5, 8])
def test_shapley_values_of_the_kernel_are_those_of_the_definition(regions: int) -> None:
    shown = np.random.default_rng(0).random((6, regions)) < 0.5
    np.testing.assert_allclose(shapley_of_kernel(shown), exact_shapley(kernel(shown)), atol=1e-12)


@pytest.mark.parametrize("regions", [1, 2, 5, 8])
def test_lime_s_means_are_those_over_all_coalitions(regions: int) -> None:
    shown = np.random.default_rng(1).random((6, regions)) < 0.5
    every = every_coalition(regions)
    by_size = np.random.default_rng(2).random(regions + 1)
    design = np.concatenate([every, np.ones((len(every), 1))], axis=1) * 1.0
    weighed = design * by_size[every.sum(axis=1)][:, None] / len(every)
    means = LimeMeans(weight=by_size)
    np.testing.assert_allclose(means.gram(), weighed.T @ design, atol=1e-12)
    np.testing.assert_allclose(means.moments(shown), weighed.T @ kernel(shown), atol=1e-12)


def test_with_every_coalition_asked_nothing_is_left_to_guess() -> None:
    answers = smooth_game(7, seed=3)
    every = every_coalition(7)
    pairs = np.array([row for row in every[1:-1] if row[0]])
    shapley = interpolated(pairs, asked(answers, pairs), answers[[0, -1]])
    np.testing.assert_allclose(shapley.values, exact_shapley(answers), atol=0.01)
    both = np.stack([pairs, ~pairs], axis=1).reshape(-1, 7)
    bits = 1 << np.arange(7)
    lime = lime_of_all(both, answers[both @ bits], width=WIDTH, ridge=RIDGE)
    truth = surrogate(every, answers, width=WIDTH, ridge=RIDGE)
    np.testing.assert_allclose(lime.values, truth.values, atol=0.01)


def test_the_values_of_a_linear_game_are_found_without_error() -> None:
    worth = np.random.default_rng(4).normal(size=(20, 2))
    drawn = take(balanced_halves(20, np.random.default_rng(5)), 32)
    answers = np.stack([drawn @ worth, ~drawn @ worth], axis=1)
    found = interpolated(drawn, answers, np.stack([np.zeros(2), worth.sum(axis=0)]))
    np.testing.assert_allclose(found.values, worth, atol=1e-8)
    np.testing.assert_allclose(found.errors, 0.0, atol=1e-6)


def test_fewer_answers_come_nearer_than_a_regression_over_them_and_add_up() -> None:
    answers = smooth_game(12, seed=6)
    truth = exact_shapley(answers)
    every = every_coalition(12)
    lime_truth = surrogate(every, answers, width=WIDTH, ridge=RIDGE).values
    errors: dict[str, list[float]] = {"process": [], "regression": [], "lime": [], "surrogate": []}
    for seed in range(12):
        drawn = take(leveraged(12, np.random.default_rng(seed)), 30)
        found = asked(answers, drawn)
        process = interpolated(drawn, found, answers[[0, -1]])
        plain = regression(drawn, (found[:, 0] - found[:, 1]) / 2, answers[-1] - answers[0])
        np.testing.assert_allclose(process.values.sum(axis=0), answers[-1] - answers[0], atol=1e-9)
        errors["process"].append(float(np.abs(process.values - truth).mean()))
        errors["regression"].append(float(np.abs(plain.values - truth).mean()))
        drawn = take(balanced_halves(12, np.random.default_rng(seed)), 30)
        both, logits = np.stack([drawn, ~drawn], axis=1).reshape(60, 12), asked(answers, drawn).reshape(60, 1)
        for name, fit in (("lime", lime_of_all), ("surrogate", surrogate)):
            values = fit(both, logits, width=WIDTH, ridge=RIDGE).values
            errors[name].append(float(np.abs(values - lime_truth).mean()))
    mean = {name: np.mean(values) for name, values in errors.items()}
    assert mean["process"] < mean["regression"]
    assert mean["lime"] < mean["surrogate"]


def test_repeats_with_other_coalitions_vary_no_more_than_the_errors_say() -> None:
    answers = smooth_game(12, seed=7)
    values, errors = [], []
    for seed in range(12):
        drawn = take(leveraged(12, np.random.default_rng(seed)), 30)
        found = interpolated(drawn, asked(answers, drawn), answers[[0, -1]])
        values.append(found.values)
        errors.append(found.errors)
    spread, said = np.std(values, axis=0, ddof=1).mean(), np.mean(errors)
    # Careful, but not without bounds.
    assert spread <= said <= 3 * spread


def test_fewer_answers_than_regions_give_finite_values() -> None:
    shown = np.random.default_rng(8).random((10, 30)) < 0.5
    answers = np.random.default_rng(9).normal(size=(10, 1))
    found = Kriging.fit(shown, answers).estimate(shapley_of_kernel(shown), np.eye(30, 31), pairs=5)
    assert np.isfinite(found.values).all()
    assert np.isfinite(found.errors).all()
