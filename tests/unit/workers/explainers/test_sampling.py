from __future__ import annotations

import numpy as np
import pytest

from workers.explainers.bounds import choice, real, whole
from workers.explainers.sampling import Estimate, balanced_halves, every_coalition, leveraged, pair_shares, take


def test_every_coalition_comes_once() -> None:
    shown = every_coalition(5)
    assert shown.shape == (32, 5)
    assert len({tuple(row) for row in shown}) == 32
    np.testing.assert_array_equal(shown[0b10011], [True, True, False, False, True])


def test_halves_tell_regions_apart_as_well_as_can_be() -> None:
    shown = take(balanced_halves(15, np.random.default_rng(0)), 16)
    signs = 2.0 * shown - 1.0
    np.testing.assert_array_equal(signs.T @ signs, 16 * np.eye(15))


def test_halves_differ_from_block_to_block_and_not_from_seed_to_seed() -> None:
    first = take(balanced_halves(15, np.random.default_rng(0)), 32)
    assert not np.array_equal(first[:16], first[16:])
    np.testing.assert_array_equal(first, take(balanced_halves(15, np.random.default_rng(0)), 32))


def test_every_region_is_shown_half_the_time_and_every_row_is_uniform() -> None:
    rows = np.stack([take(balanced_halves(6, np.random.default_rng(seed)), 1)[0] for seed in range(3000)])
    np.testing.assert_allclose(rows.mean(axis=0), 0.5, atol=0.04)
    # Also three at a time: a uniform draw shows any three together once in eight.
    assert (rows[:, 0] & rows[:, 2] & rows[:, 5]).mean() == pytest.approx(1 / 8, abs=0.025)


@pytest.mark.parametrize("regions", [2, 3, 10, 11])
def test_sizes_come_as_often_as_their_shares_say(regions: int) -> None:
    size = take(leveraged(regions, np.random.default_rng(1)), 1000).sum(axis=1)
    sizes = np.arange(1, regions // 2 + 1)
    expected = pair_shares(regions, sizes)
    assert expected.sum() == pytest.approx(1.0)
    np.testing.assert_allclose([(size == s).mean() for s in sizes], expected, atol=0.005)


def test_the_deck_gives_every_region_its_turns() -> None:
    shown = take(leveraged(12, np.random.default_rng(2)), 300)
    turns = shown.sum(axis=0)
    assert turns.max() - turns.min() <= 8


def test_exact_values_are_stable_and_unknown_errors_are_not() -> None:
    values = np.array([[1.0], [2.0], [4.0]])
    assert Estimate(values=values, errors=np.zeros((3, 1))).stability() == 1.0
    assert Estimate(values=values, errors=np.full((3, 1), np.inf)).stability() == 0.0
    assert Estimate(values=np.zeros((3, 1)), errors=np.zeros((3, 1))).stability() == 1.0


def test_stability_is_the_correlation_of_repeats() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(400, 1))
    repeats = [truth + rng.normal(size=(400, 1)) * 0.5 for _ in range(2)]
    expected = np.corrcoef(repeats[0][:, 0], repeats[1][:, 0])[0, 1]
    found = Estimate(values=repeats[0], errors=np.full((400, 1), 0.5)).stability()
    assert found == pytest.approx(expected, abs=0.05)


def test_the_worst_label_decides() -> None:
    values = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    errors = np.array([[0.0, 1.0]] * 3)
    estimate = Estimate(values=values, errors=errors)
    assert estimate.stability() < 0.7
    measures = {m.name: m.value for m in estimate.measures(0, 12)}
    assert measures == {"samples": 12.0, "interval": 0.0, "ranking-stability": 1.0}


@pytest.mark.parametrize("value", [True, 1.5, "3", 0, 11])
def test_a_whole_number_out_of_bounds_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"regions must be a whole number from 1 to 10"):
        whole("regions", value, 1, 10)


@pytest.mark.parametrize("value", [True, "x", float("nan"), -0.1, 1.1])
def test_a_number_out_of_bounds_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"stability must be a number from 0 to 1"):
        real("stability", value, 0.0, 1.0)


def test_an_unknown_word_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"replacement must be one of blur, mean, not 'grey'"):
        choice("replacement", "grey", ("blur", "mean"))
