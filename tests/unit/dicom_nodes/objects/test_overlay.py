from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageDraw

from dicom_nodes.objects import subject
from dicom_nodes.objects.comparison import render_comparison
from dicom_nodes.objects.overlay import GAP, SIDES, render
from dicom_nodes.objects.panels import LARGEST_PANEL, SMALLEST_PANEL, Rendering, panel_size
from dicom_nodes.objects.read import SourceImage, read_image
from dicom_nodes.objects.scene import compared_scenes
from dicom_nodes.objects.typesetting import font

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]


def corners(rows: int, columns: int) -> np.ndarray:
    """Four different marks: bright top-left, medium top-right, dim bottom-left, none bottom-right."""
    grid = np.full((rows, columns), 20, dtype=np.uint8)
    size = max(4, min(rows, columns) // 8)
    grid[:size, :size], grid[:size, -size:], grid[-size:, :size] = 250, 170, 90
    return grid


def quadrant_levels(panel: np.ndarray) -> list[int]:
    """Mean grey near each corner: top-left, top-right, bottom-left, bottom-right."""
    height, width = panel.shape[0] // 24, panel.shape[1] // 24
    grey = panel.mean(axis=2)
    cuts = (grey[:height, :width], grey[:height, -width:], grey[-height:, :width], grey[-height:, -width:])
    return [round(float(cut.mean())) for cut in cuts]


def cut(rendering: Rendering, name: str) -> np.ndarray:
    left, top, right, bottom = getattr(rendering, name)
    return rendering.picture[top:bottom, left:right]


def read(saved: Save, dataset: FileDataset) -> SourceImage:
    return read_image(saved(dataset))


SHAPES = [(200, 200), (150, 300), (300, 150)]
ORIENTATIONS = [["L", "F"], ["R", "F"], ["L", "H"], ["A", "F"], None]
POLARITIES = ["MONOCHROME1", "MONOCHROME2"]
ASPECTS: list[dict[str, Any]] = [{}, {"PixelAspectRatio": ["2", "1"]}, {"PixelSpacing": ["0.1", "0.2"]}]


@pytest.mark.parametrize(
    ("shape", "orientation", "polarity", "aspect"),
    list(itertools.product(SHAPES, ORIENTATIONS, POLARITIES, ASPECTS)),
)
def test_nothing_is_flipped_or_turned(  # noqa: PLR0917 - three fixtures and a row of the table
    source: Make,
    saved: Save,
    result: Results,
    shape: tuple[int, int],
    orientation: list[str] | None,
    polarity: str,
    aspect: dict[str, Any],
) -> None:
    grid = corners(*shape)
    pixels = 255 - grid if polarity == "MONOCHROME1" else grid
    dataset = source(pixels, PhotometricInterpretation=polarity, PatientOrientation=orientation, **aspect)
    read_back = read(saved, dataset)
    rendering = render(read_back.header, read_back.image, result(read_back.image, probability=0.1))
    for name in ("original", "overlay"):
        levels = quadrant_levels(cut(rendering, name))
        assert np.allclose(levels, [250, 170, 90, 20], atol=6), name


def test_the_heat_lies_where_the_map_is_strong(source: Make, saved: Save, result: Results) -> None:
    read_back = read(saved, source(np.full((300, 200), 128, dtype=np.uint8)))
    drawn = render(read_back.header, read_back.image, result(read_back.image))
    difference = np.abs(cut(drawn, "overlay").astype(int) - cut(drawn, "original").astype(int)).sum(axis=2)
    rows, columns = np.nonzero(difference > 60)
    assert rows.mean() / difference.shape[0] == pytest.approx(0.3, abs=0.02)
    assert columns.mean() / difference.shape[1] == pytest.approx(0.7, abs=0.02)
    assert difference[-difference.shape[0] // 3 :].max() == 0


def test_no_word_touches_a_film_or_leaves_the_picture(source: Make, saved: Save, result: Results) -> None:
    for shape in [(200, 200), (60, 600), (600, 60), (16, 16)]:
        read_back = read(saved, source(np.full(shape, 128, dtype=np.uint8)))
        rendering = render(read_back.header, read_back.image, result(read_back.image))
        height, width = rendering.picture.shape[:2]
        for box in rendering.texts:
            assert 0 <= box[0] <= box[2] <= width
            assert 0 <= box[1] <= box[3] <= height
            for film in (rendering.original, rendering.overlay):
                apart = box[2] <= film[0] or film[2] <= box[0] or box[3] <= film[1] or film[3] <= box[1]
                assert apart, (shape, box, film)


def test_the_original_panel_is_the_film_alone(source: Make, saved: Save, result: Results) -> None:
    read_back = read(saved, source(corners(1024, 1024)))
    panel = cut(render(read_back.header, read_back.image, result(read_back.image)), "original")
    assert np.array_equal(panel[..., 0], np.rint(read_back.image.grey * 255).astype(np.uint8))
    assert np.array_equal(panel[..., 0], panel[..., 1])


def test_a_finding_below_its_operating_point_gets_no_colour(source: Make, saved: Save, result: Results) -> None:
    read_back = read(saved, source(np.full((300, 300), 128, dtype=np.uint8)))
    panel = cut(render(read_back.header, read_back.image, result(read_back.image, probability=0.2)), "overlay")
    assert np.ptp(panel.astype(int), axis=2).max() <= 2
    assert np.ptp(panel) > 50


def test_a_map_without_positive_values_leaves_the_film_untouched(source: Make, saved: Save, result: Results) -> None:
    read_back = read(saved, source(np.full((300, 300), 128, dtype=np.uint8)))
    negative = np.full((300, 300), -1.0, dtype=np.float32)
    drawn = render(read_back.header, read_back.image, result(read_back.image, attribution=negative))
    assert np.array_equal(cut(drawn, "overlay"), cut(drawn, "original"))


def test_the_film_shows_through_the_strongest_heat(source: Make, saved: Save, result: Results) -> None:
    stripes = np.tile(np.array([40, 40, 40, 40, 200, 200, 200, 200], dtype=np.uint8), (1024, 128))
    read_back = read(saved, source(stripes))
    strong = np.ones(stripes.shape, dtype=np.float32)
    panel = cut(render(read_back.header, read_back.image, result(read_back.image, attribution=strong)), "overlay")
    row = panel[512].astype(int).sum(axis=1)
    assert np.abs(np.diff(row)).max() > 0.4 * 160 * 3


@pytest.mark.parametrize(
    ("shape", "aspect", "expected"),
    [
        ((1955, 1841), 1.0, (964, 1024)),
        ((128, 128), 1.0, (SMALLEST_PANEL, SMALLEST_PANEL)),
        ((100, 100), 2.0, (384, SMALLEST_PANEL)),
        ((800, 900), 1.0, (900, 800)),
        ((1, 5000), 1.0, (LARGEST_PANEL, 2)),
    ],
)
def test_panels_have_square_pixels_and_bounded_sides(
    shape: tuple[int, int], aspect: float, expected: tuple[int, int]
) -> None:
    assert panel_size(shape, aspect) == expected


def test_the_corners_stay_free_for_what_viewers_write_there(source: Make, saved: Save, result: Results) -> None:
    read_back = read(saved, source(np.full((800, 600), 128, dtype=np.uint8)))
    rendering = render(read_back.header, read_back.image, result(read_back.image))
    height, width = rendering.picture.shape[:2]
    assert min(box[1] for box in rendering.texts) >= width // 12
    assert max(box[3] for box in rendering.texts) <= height - width // 18


def trimmed(picture: np.ndarray) -> np.ndarray:
    """Cut off what is black around something."""
    rows, columns = np.nonzero(picture.any(axis=2))
    return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def letter(text: str) -> np.ndarray:
    canvas = Picture.new("RGB", (4 * SIDES, 2 * SIDES))
    ImageDraw.Draw(canvas).text((8, 8), text, fill=(235, 235, 235), font=font(SIDES - 8))
    return trimmed(np.asarray(canvas))


@pytest.mark.parametrize(
    ("orientation", "left", "right"), [(["L", "F"], "R", "L"), (["R", "F"], "L", "R"), (["PL", "F"], "AR", "PL")]
)
def test_above_each_film_stands_which_side_is_which(  # noqa: PLR0917 - three fixtures and a row of the table
    source: Make, saved: Save, several: Results, orientation: list[str], left: str, right: str
) -> None:
    read_back = read(saved, source(np.full((300, 240), 128, dtype=np.uint8), PatientOrientation=orientation))
    result = several((300, 240))
    (scenes,) = compared_scenes(subject.of_image(read_back.header, read_back.image, result))
    (compared,) = render_comparison(scenes[::2])
    for page in (render(read_back.header, read_back.image, result), compared):
        assert len(page.films) == 2
        for start, top, end, _ in page.films:
            middle, above = (start + end) // 2, slice(top - SIDES, top)
            assert np.array_equal(trimmed(page.picture[above, start:middle]), letter(left))
            assert np.array_equal(trimmed(page.picture[above, middle:end]), letter(right))


def test_above_a_film_that_does_not_state_its_sides_stands_nothing(source: Make, saved: Save, result: Results) -> None:
    read_back = read(saved, source(np.full((300, 240), 128, dtype=np.uint8), PatientOrientation=None))
    page = render(read_back.header, read_back.image, result(read_back.image))
    assert not any(page.picture[top - SIDES : top, start:end].any() for start, top, end, _ in page.films)


def test_the_scale_has_the_strongest_colour_at_its_top(source: Make, saved: Save, result: Results) -> None:
    read_back = read(saved, source(np.full((300, 240), 128, dtype=np.uint8)))
    page = render(read_back.header, read_back.image, result(read_back.image))
    _, top, end, bottom = page.overlay
    bar = page.picture[top + 48 : bottom - 48, end + GAP + 20].astype(int)
    assert bar.shape[0] == bottom - top - 96
    film = cut(page, "overlay").astype(int)
    strongest = film[round(0.3 * film.shape[0]), round(0.7 * film.shape[1])]
    assert bar[0].tolist() == pytest.approx(strongest.tolist(), abs=3)
    assert np.ptp(strongest) > 100
    assert bar[-1].tolist() == pytest.approx(film[-1, 0].tolist(), abs=3)


def test_beside_a_film_that_is_called_negative_stands_no_scale(source: Make, saved: Save, result: Results) -> None:
    read_back = read(saved, source(np.full((300, 240), 128, dtype=np.uint8)))
    page = render(read_back.header, read_back.image, result(read_back.image, probability=0.1))
    assert page.picture.shape[1] == page.overlay[2]
