from __future__ import annotations

import numpy as np
import pytest
import torch
from known_networks import COLUMNS, ROWS, Asked, Smooth, Spot, film

from service.errors import UnsupportedMethodError
from workers.explainers.rise import Masks, Rise, slopes


def planted() -> torch.Tensor:
    batch = 0.1 * film()
    batch[..., 8:20, 40:52] += 4.0
    return batch


def test_a_planted_feature_is_found() -> None:
    (found,) = Rise(samples=400, replacement="mean").explain(Asked(inside=Spot(8, 40, 12)), planted(), [0])  # type: ignore[arg-type]
    row, column = divmod(int(found.map.argmax()), found.map.shape[1])
    assert 8 <= (row + 0.5) * ROWS / found.map.shape[0] < 20
    assert 40 <= (column + 0.5) * COLUMNS / found.map.shape[1] < 52
    measures = {m.name: m.value for m in found.measures}
    assert measures["samples"] <= 400
    assert measures["interval"] < 0.5 * float(found.map.max())


def test_the_sign_says_whether_a_place_raised_the_logit() -> None:
    class Less(Spot):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return -super().forward(batch)

    (found,) = Rise(samples=400, replacement="mean").explain(Asked(inside=Less(8, 40, 12)), planted(), [0])  # type: ignore[arg-type]
    assert found.map.abs().argmax() == found.map.argmin()
    assert found.map.min() < -1


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flipped_film_moves_the_map_alike(axis: int) -> None:
    def place(spot: Spot, batch: torch.Tensor) -> torch.Tensor:
        (found,) = Rise(samples=600, replacement="mean").explain(Asked(inside=spot), batch, [0])  # type: ignore[arg-type]
        return found.map

    mirrored = Spot(28, 40, 12) if axis == 0 else Spot(8, 12, 12)
    straight, flipped = place(Spot(8, 40, 12), planted()).flip(axis), place(mirrored, planted().flip(axis + 2))
    assert np.corrcoef(straight.flatten(), flipped.flatten())[0, 1] > 0.85


def test_masks_and_their_complements_are_alike_and_soft() -> None:
    masks = Masks((ROWS, COLUMNS), 8, seed=0)
    assert masks.grid == (6, 8)
    drawn = masks.draw(500)
    assert drawn.shape == (500, ROWS, COLUMNS)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    torch.testing.assert_close(drawn.mean(dim=0), torch.full((ROWS, COLUMNS), 0.5), atol=0.08, rtol=0)
    # A step of a pixel is no more than a cell's side allows.
    assert drawn.diff(dim=1).abs().max() <= 1 / 8 + 1e-6


def test_slopes_have_the_variance_that_repeats_show() -> None:
    rng = np.random.default_rng(0)
    effect = np.array([2.0, 0.0, -1.0])
    found = []
    for _ in range(400):
        visible = rng.random((50, 3)) - 0.5
        halves = visible @ effect[:, None] + rng.normal(size=(50, 1))
        found.append(slopes(visible, halves))
    values = np.stack([f.values[:, 0] for f in found])
    errors = np.stack([f.errors[:, 0] for f in found])
    np.testing.assert_allclose(values.mean(axis=0), effect, atol=0.15)
    np.testing.assert_allclose(np.sqrt((errors**2).mean(axis=0)), values.std(axis=0), rtol=0.15)


def test_the_seed_decides_and_nothing_else_does() -> None:
    classifier, batch = Asked(inside=Smooth()), film()
    first, again, other = (
        Rise(samples=64, seed=seed).explain(classifier, batch, [0])[0].map  # type: ignore[arg-type]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_series_is_refused_in_words() -> None:
    with pytest.raises(UnsupportedMethodError, match="two-dimensional"):
        Rise().explain(Asked(inside=Spot(0, 0, 4)), torch.zeros(1, 1, 4, 8, 8), [0])  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"cells": 1}, {"samples": 3}, {"stability": "x"}, {"replacement": "grey"}])
def test_a_wrong_parameter_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Rise(**wrong)  # type: ignore[arg-type]
