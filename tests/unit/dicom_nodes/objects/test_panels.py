"""Colour grows with influence, and lines lie where the map has their level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from dicom_nodes.objects import colour, subject
from dicom_nodes.objects.panels import explained_panel, scene_size
from dicom_nodes.objects.read import read_image
from dicom_nodes.objects.scene import default_scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

SHAPE = (300, 240)


def cone(row: float, column: float, radius: float) -> np.ndarray:
    """Return a map whose half maximum is a circle."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    values = np.clip(1 - np.hypot(rows - row, columns - column) / (2 * radius), 0, 1)
    return np.asarray(values, dtype=np.float32)


def panel(read: Any, result: Result) -> np.ndarray:
    scene = default_scene(subject.of_image(read.header, read.image, result))
    return np.asarray(explained_panel(scene, scene_size(scene))).astype(int)


def test_below_a_quarter_of_the_maximum_the_film_is_untouched_and_nowhere_hidden() -> None:
    values = np.array([0.0, 0.24, 0.25, 0.3, 0.6, 1.0], dtype=np.float32)
    opacity = colour.alpha(values)
    assert opacity[:3].tolist() == [0, 0, 0]
    assert (np.diff(opacity[2:]) > 0).all()
    assert opacity[-1] == pytest.approx(0.55)


def test_more_influence_is_brighter_and_never_white() -> None:
    heat = colour.heat(np.linspace(0, 1, 101, dtype=np.float32))
    assert (np.diff(heat @ np.array([0.299, 0.587, 0.114])) > 0).all()
    dark, bright = heat[25], heat[100]
    assert dark[2] > dark[1]  # violet
    assert bright[1] > 150 > bright[2]  # yellow


@pytest.mark.parametrize("aspect", [{}, {"PixelSpacing": ["0.2", "0.1"]}, {"PixelSpacing": ["0.1", "0.2"]}])
def test_both_lines_lie_where_the_map_has_their_level(
    source: Make, saved: Save, result: Results, aspect: dict[str, list[str]]
) -> None:
    read = read_image(saved(source(np.zeros(SHAPE, dtype=np.uint8), **aspect)))
    drawn = panel(read, result(read.image, attribution=cone(100, 160, 50)))
    height, width = drawn.shape[:2]
    white = drawn.min(axis=2) > 200
    yellow = (drawn[..., :2].min(axis=2) > 215) & (drawn[..., 2] < 150)
    for line, radius in ((white, 50), (yellow, 20)):
        rows, columns = np.nonzero(line)
        found = np.array([rows.min() / height, rows.max() / height, columns.min() / width, columns.max() / width])
        expected = [(100 - radius) / 300, (100 + radius) / 300, (160 - radius) / 240, (160 + radius) / 240]
        assert np.allclose(found, expected, atol=0.01)


@pytest.mark.parametrize(("probability", "pieces"), [(0.9, 1), (0.1, 20)])
def test_the_line_on_a_film_that_is_called_negative_is_dashed(
    source: Make, saved: Save, result: Results, probability: float, pieces: int
) -> None:
    read = read_image(saved(source(np.zeros(SHAPE, dtype=np.uint8))))
    drawn = panel(read, result(read.image, probability=probability, attribution=cone(150, 120, 50)))
    found = ndimage.label(drawn.min(axis=2) > 150, structure=np.ones((3, 3)))[1]
    assert found == 1 if pieces == 1 else found >= pieces
