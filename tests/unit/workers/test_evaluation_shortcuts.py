from __future__ import annotations

import numpy as np
import pytest

from workers.evaluation.shortcuts import energy, find_shortcuts


def test_energy_counts_only_the_positive_part_and_none_of_an_empty_map() -> None:
    values = np.array([[3.0, 1.0], [-8.0, 0.0]], dtype=np.float32)
    inside = np.array([[1.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    assert energy(values, inside) == pytest.approx(0.75)
    assert energy(-np.abs(values), inside) == 0.0


def test_a_change_counts_whichever_way_the_label_moves_the_answer() -> None:
    found = find_shortcuts([0.2, -0.4], [{}, {"grad-cam": 0.5}, {"grad-cam": 1.0}])
    assert found.label_change is not None
    assert found.label_change.mean == pytest.approx(0.3)
    assert found.lung_energy["grad-cam"].mean == pytest.approx(0.75)
    assert found.lung_energy["grad-cam"].n == 2


def test_clear_films_are_counted_that_breast_shadows_make_positive() -> None:
    found = find_shortcuts([], [], [(0.1, 0.7), (0.1, 0.2), (0.6, 0.9), (0.2, 0.5)], 0.5).breast_shadows
    assert found is not None
    assert (found.n, found.called_positive, found.under_shadows) == (4, 0.25, 0.75)


def test_nothing_measured_is_said_as_nothing() -> None:
    found = find_shortcuts([], [{}])
    assert found.label_change is None
    assert found.breast_shadows is None
    assert not found.lung_energy
