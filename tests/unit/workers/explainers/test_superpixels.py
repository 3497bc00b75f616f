from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from service.errors import UnsupportedMethodError
from workers.explainers.superpixels import region_tree, superpixels

ROWS, COLUMNS = 48, 64


def film(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(1, 1, 6, 8)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(ROWS, COLUMNS), mode="nearest")
    return fine + 0.1 * torch.from_numpy(rng.normal(size=(1, 1, ROWS, COLUMNS)).astype(np.float32))


def test_every_region_is_one_piece_and_none_is_missing() -> None:
    regions = superpixels(film(), 20)
    assert regions.shape == (ROWS, COLUMNS)
    assert 12 <= regions.max() + 1 <= 30
    for region in range(int(regions.max()) + 1):
        assert ndimage.label(regions == region)[1] == 1


def test_regions_follow_an_edge() -> None:
    batch = torch.zeros(1, 1, ROWS, COLUMNS)
    # Off the seeds' grid, where plain squares would straddle it.
    batch[..., 29:] = 1.0
    regions = superpixels(batch, 12)
    left, right = set(np.unique(regions[:, :28])), set(np.unique(regions[:, 30:]))
    assert not left & right


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flipped_image_gives_the_flipped_regions(axis: int) -> None:
    batch = film(2)
    straight = np.flip(superpixels(batch, 20), axis)
    flipped = superpixels(batch.flip(axis + 2), 20)
    # Same partition under other numbers: as many pairs of numbers as regions, but for pixels at ties.
    pairs, counts = np.unique(straight.ravel() * 1000 + flipped.ravel(), return_counts=True)
    assert len(pairs) >= flipped.max() + 1
    assert np.sort(counts)[-(int(flipped.max()) + 1) :].sum() >= 0.99 * flipped.size


def test_the_same_image_gives_the_same_regions_and_they_cannot_be_changed() -> None:
    first, second = superpixels(film(), 20), superpixels(film(), 20)
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 3


def test_a_constant_image_is_cut_into_squares() -> None:
    regions = superpixels(torch.zeros(1, 1, 40, 40), 16)
    np.testing.assert_array_equal(np.bincount(regions.ravel()), np.full(16, 100))


def test_more_regions_than_pixels_give_a_region_per_pixel() -> None:
    assert superpixels(torch.zeros(1, 1, 3, 4), 500).max() + 1 == 12


def test_a_series_is_refused_in_words() -> None:
    with pytest.raises(UnsupportedMethodError, match="two-dimensional"):
        superpixels(torch.zeros(1, 1, 4, 8, 8), 9)


def test_the_tree_joins_all_regions_each_once() -> None:
    batch = film(1)
    regions = superpixels(batch, 15)
    count = int(regions.max()) + 1
    tree = region_tree(batch, regions)
    assert len(tree) == count - 1
    assert sorted(part for node in tree for part in node) == list(range(2 * count - 2))


def test_the_tree_joins_what_looks_alike_first() -> None:
    batch = torch.zeros(1, 1, 40, 40)
    batch[..., 20:] = 5.0
    regions = superpixels(batch, 16)
    count = int(regions.max()) + 1
    tree = region_tree(batch, regions)
    members = [{index} for index in range(count)]
    for left, right in tree:
        members.append(members[left] | members[right])
    bright = {int(r) for r in np.unique(regions[:, 20:])}
    assert set(tree[-1]) == {members.index(bright), members.index(set(range(count)) - bright)}
