from __future__ import annotations

import numpy as np
import pytest

from dicom_nodes.objects.contours import MAX_POINTS, MAX_REGIONS, inside, magnitude, outlined, regions


def disc(rows: int, columns: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """A cone whose half maximum is a circle of `radius` about (column, row) in SCOORD coordinates."""
    y, x = np.mgrid[:rows, :columns] + 0.5
    return np.clip(1 - np.hypot(x - centre[0], y - centre[1]) / (2 * radius), 0, 1).astype(np.float32)


def test_only_the_positive_part_counts_and_its_maximum_is_one() -> None:
    values = magnitude(np.array([[-5.0, 0.0], [2.0, 4.0]], dtype=np.float32))
    assert values.tolist() == [[0, 0], [0.5, 1]]


@pytest.mark.parametrize("fill", [0.0, -1.0, np.nan])
def test_a_map_without_positive_values_has_no_regions(fill: float) -> None:
    values = magnitude(np.full((20, 30), fill, dtype=np.float32))
    assert not values.any()
    assert regions(values, 0.5) == []


def test_coordinates_count_from_the_corner_of_the_first_pixel() -> None:
    block = np.zeros((40, 60), dtype=np.float32)
    block[10:20, 30:50] = 1.0
    (region,) = regions(block, 0.5)
    assert np.allclose(region.points.min(axis=0), [30, 10], atol=0.01)
    assert np.allclose(region.points.max(axis=0), [50, 20], atol=0.01)
    assert region.area == pytest.approx(200, rel=0.02)


def test_one_corner_pixel_is_outlined_in_that_corner() -> None:
    for row, column in ((0, 0), (0, 29), (19, 0), (19, 29)):
        values = np.zeros((20, 30), dtype=np.float32)
        values[row, column] = 1.0
        (region,) = regions(values, 0.5)
        assert np.allclose(region.points.mean(axis=0), [column + 0.5, row + 0.5], atol=0.3)


@pytest.mark.parametrize("size", [(300, 200), (2000, 3000)])
def test_a_circle_keeps_its_place_and_area_on_coarse_and_fine_grids(size: tuple[int, int]) -> None:
    radius = min(size) / 8
    centre = (size[1] * 0.7, size[0] * 0.3)
    (region,) = regions(disc(*size, centre, radius), 0.5)
    assert region.area == pytest.approx(np.pi * radius**2, rel=0.02)
    box = (region.points.min(axis=0) + region.points.max(axis=0)) / 2
    assert np.allclose(box, centre, atol=size[0] / 300)


def test_a_region_at_the_border_is_closed_along_it() -> None:
    (region,) = regions(disc(100, 100, (0, 50), 20), 0.5)
    assert region.points[0].tolist() == region.points[-1].tolist()
    assert region.points.min() >= 0
    assert region.area == pytest.approx(np.pi * 20**2 / 2, rel=0.05)


def test_holes_are_no_regions() -> None:
    values = disc(200, 200, (100, 100), 60)
    values[90:110, 90:110] = 0
    assert len(regions(values, 0.5)) == 1


def test_regions_come_largest_first_and_not_too_many() -> None:
    values = np.zeros((300, 300), dtype=np.float32)
    for index in range(8):
        values = np.maximum(values, disc(300, 300, (30 + 34 * index, 150), 6 + index))
    areas = [region.area for region in regions(values, 0.5)]
    assert len(areas) == MAX_REGIONS
    assert areas == sorted(areas, reverse=True)


def test_outlines_are_light() -> None:
    noise = np.random.default_rng(0).random((200, 200)).astype(np.float32)
    assert all(len(region.points) <= MAX_POINTS + 1 for region in regions(noise, 0.5))


def test_a_pixel_map_is_smoothed_before_lines_are_drawn() -> None:
    speckle = np.random.default_rng(0).random((400, 400)).astype(np.float32) ** 8 * disc(400, 400, (300, 100), 50)
    smooth = outlined(magnitude(speckle))
    (region, *_) = regions(smooth, 0.5)
    assert np.allclose(region.points.mean(axis=0), (300, 100), atol=15)
    calm = magnitude(disc(400, 400, (300, 100), 50))
    assert outlined(calm) is calm


def test_inside_agrees_with_the_level_set() -> None:
    values = disc(120, 90, (60, 40), 20)
    (region,) = regions(values, 0.5)
    assert np.mean(inside(region, values.shape) != (values >= 0.5)) < 0.005
