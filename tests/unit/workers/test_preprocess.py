from __future__ import annotations

import numpy as np
import pytest
import torch

from service.errors import NotEligibleError
from service.model_card import Input
from workers.preprocess import standardize, to_input, to_source

EXPECTED = Input(rows=64, columns=64)


def film(rows: int = 200, columns: int = 150) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns]
    return (0.5 + 0.3 * np.sin(x / 17) * np.cos(y / 23)).astype(np.float32)


def test_input_has_the_networks_shape_and_unit_contrast() -> None:
    batch = to_input(film(), EXPECTED)
    assert batch.shape == (1, 1, 64, 64)
    assert abs(float(batch.mean())) < 0.1
    assert abs(float(batch.std()) - 1) < 0.1


def test_a_brighter_or_flatter_film_gives_the_same_input() -> None:
    grey = film()
    assert torch.allclose(to_input(grey, EXPECTED), to_input(grey * 0.5 + 0.2, EXPECTED), atol=1e-4)


def test_a_white_marker_and_a_black_border_leave_the_lungs_contrast_alone() -> None:
    plain = torch.from_numpy(film(224, 224))[None, None]
    marked = plain.clone()
    marked[..., :12, :] = 0.0
    marked[..., 30:50, 30:44] = 1.0
    assert torch.allclose(standardize(plain)[..., 100:, :], standardize(marked)[..., 100:, :], atol=0.03)


def test_shrinking_does_not_alias_a_fine_pattern() -> None:
    stripes = np.tile(np.array([0.0, 1.0], dtype=np.float32), (512, 256))
    stripes[:256] = 0.5
    assert float(to_input(stripes, Input(rows=64, columns=64, normalization="fixed")).sub(0.5).abs().max()) < 0.05


def test_a_map_lands_on_the_source_where_it_came_from() -> None:
    grid = torch.zeros(14, 14)
    grid[3, 10] = 1.0
    back = to_source(grid, 1400, 700)
    assert back.shape == (1400, 700)
    assert back.dtype == np.float32
    row, column = np.unravel_index(int(back.argmax()), back.shape)
    assert (abs(row - 349.5), abs(column - 524.5)) <= (1, 1)


@pytest.mark.parametrize(
    ("grey", "reason"),
    [
        (np.full((50, 50), 0.4, np.float32), "constant"),
        (np.zeros((50, 50), np.float32), "black"),
        (np.zeros((1, 1), np.float32), "too few"),
        (np.where(np.eye(50) > 0, np.nan, 0.5).astype(np.float32), "not finite"),
        (np.where(np.eye(50) > 0, np.inf, 0.5).astype(np.float32), "not finite"),
        (np.broadcast_to(np.float32(0.5), (20_000, 20_000)), "the limit is"),
        (np.zeros((4, 4, 3), np.float32), "one grey frame"),
    ],
)
def test_images_without_a_picture_are_refused(grey: np.ndarray, reason: str) -> None:
    with pytest.raises(NotEligibleError, match=reason):
        to_input(grey, EXPECTED)
