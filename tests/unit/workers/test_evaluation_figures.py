from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from service.results import OperatingPoint
from workers.evaluation.figures import (
    auc,
    auc_interval,
    average_precision,
    brier,
    calibration_error,
    confuse,
    measure,
    precision_recall,
    reliability,
    roc,
)
from workers.evaluation.subgroups import by_subgroup

TRUTH = np.array([0, 0, 1, 1, 1, 0])
PROBABILITY = np.array([0.1, 0.6, 0.6, 0.9, 0.4, 0.2])
POINT = OperatingPoint(name="balanced", threshold=0.5, sensitivity=0.9, specificity=0.9)


def simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    return truth, 1 / (1 + np.exp(-rng.normal(1.5 * truth, 1)))


def test_counts_and_rates_are_those_of_a_hand_count() -> None:
    at = confuse(TRUTH, PROBABILITY, 0.5)
    assert (at.true_positive, at.false_positive, at.true_negative, at.false_negative) == (2, 1, 2, 1)
    assert at.accuracy == pytest.approx(4 / 6)
    assert at.precision == at.sensitivity == at.specificity == at.f1 == pytest.approx(2 / 3)


def test_area_counts_pairs_and_half_of_ties() -> None:
    pairs = [(s > w) + 0.5 * (s == w) for s in PROBABILITY[TRUTH == 1] for w in PROBABILITY[TRUTH == 0]]
    assert auc(TRUTH, PROBABILITY) == pytest.approx(np.mean(pairs))


def test_area_of_one_class_is_undefined() -> None:
    assert math.isnan(auc(np.ones(3, dtype=int), np.array([0.1, 0.2, 0.3])))


def test_delong_interval_is_as_wide_as_repeated_samples_spread() -> None:
    truth, probability = simulated(400, 0)
    low, high = auc_interval(truth, probability)
    areas = [auc(*simulated(400, seed)) for seed in range(1, 300)]
    spread = np.percentile(areas, 97.5) - np.percentile(areas, 2.5)
    assert low < auc(truth, probability) < high
    assert high - low == pytest.approx(spread, rel=0.2)


def test_perfect_ranking_has_an_interval_of_itself() -> None:
    assert auc_interval(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])) == (1.0, 1.0)


def test_calibration_error_and_brier_of_known_cases() -> None:
    truth = np.array([1, 1, 0, 0])
    assert calibration_error(truth, np.array([1.0, 1.0, 0.0, 0.0])) == 0
    assert calibration_error(truth, np.full(4, 0.5)) == 0
    assert calibration_error(truth, np.array([0.0, 0.0, 1.0, 1.0])) == 1
    assert brier(truth, np.full(4, 0.5)) == 0.25


def test_curves_start_and_end_where_they_must() -> None:
    curve = roc(TRUTH, PROBABILITY)
    assert curve[0] == (0, 0)
    assert curve[-1] == (1, 1)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))
    assert area == pytest.approx(auc(TRUTH, PROBABILITY))
    assert all(0 <= mean <= 1 and 0 <= share <= 1 for mean, share in reliability(TRUTH, PROBABILITY))


def test_every_figure_lies_in_its_interval_and_repeats() -> None:
    truth, probability = simulated(300, 5)
    first = measure(truth, probability, point=POINT, points=[POINT])
    second = measure(truth, probability, point=POINT, points=[POINT])
    assert first == second
    for name in ("accuracy", "precision", "recall", "f1", "auc", "brier"):
        low, high = first.intervals[name]
        assert low < getattr(first, name) < high
    assert first.operating_points["balanced"] == first.confusion


def test_precision_and_recall_by_hand() -> None:
    truth, probability = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    expected = [(0.5, 1.0), (0.5, 0.5), (1.0, 2 / 3), (1.0, 0.5)]
    np.testing.assert_allclose(precision_recall(truth, probability), expected)
    assert average_precision(truth, probability) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_subgroup_with_few_cases_says_so_and_a_large_one_has_figures() -> None:
    truth = np.array([0, 1] * 20 + [1] * 5)
    probability = np.linspace(0.1, 0.9, len(truth))
    groups = [{"sex": "F", "age": "30"}] * 40 + [{"sex": "M", "age": "071Y"}] * 5
    parts = {(part.column, part.value): part for part in by_subgroup(groups, truth, probability, 0.5)}
    assert set(parts) == {("sex", "F"), ("sex", "M"), ("age", "18-39"), ("age", "65-199")}
    assert parts["sex", "F"].auc == pytest.approx(auc(truth[:40], probability[:40]))
    assert parts["sex", "M"].auc is None
    assert parts["sex", "M"].sick == 5
