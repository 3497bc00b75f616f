"""What a presentation state makes of the film: DICOMscope and dcmtk, against the source."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw
from require import require_tool
from scipy import ndimage
from viewers.dicomscope import ARCHIVE, Dicomscope
from viewers.pictures import find, shown_grey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from viewers.studies import Study

FILMS = ("phantom-003", "phantom-004")
BOTTOM = 1325
"""Row of DICOMscope's window where the picture ends."""
REACH = 1
"""Pixels around a line that belong to it."""


def contours(study: Study, index: int = 0) -> list[np.ndarray]:
    """Return the lines that the presentation state has for a source, (n, 2) from the corner of the first pixel."""
    uid = study.source(index).SOPInstanceUID
    return [
        np.array(graphic.GraphicData).reshape(-1, 2)
        for annotation in study.object("presentation-state").GraphicAnnotationSequence
        if annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID == uid
        for graphic in annotation.get("GraphicObjectSequence", [])
    ]


def named(study: Study) -> list[int]:
    """Return which of the sources the presentation state is about."""
    (series,) = study.object("presentation-state").ReferencedSeriesSequence
    uids = {item.ReferencedSOPInstanceUID for item in series.ReferencedImageSequence}
    return [index for index in range(len(study.sources)) if study.source(index).SOPInstanceUID in uids]


def near(lines: list[np.ndarray], shape: tuple[int, int], reach: int) -> np.ndarray:
    """Mark pixels within so many pixels of the lines."""
    paper = Image.new("1", (shape[1], shape[0]))
    for line in lines:
        ImageDraw.Draw(paper).line([(float(x) - 0.5, float(y) - 0.5) for x, y in line], fill=1)
    return ndimage.maximum_filter(np.asarray(paper), size=2 * reach + 1)


@pytest.fixture
def dicomscope(tmp_path: Path) -> Iterator[Callable[[Study], Dicomscope]]:
    """Open DICOMscope on a film and its presentation state."""
    if not ARCHIVE.exists():
        pytest.skip("DICOMscope is not installed: make viewers")
    started: list[Dicomscope] = []

    def start(study: Study) -> Dicomscope:
        sources = [study.sources[index] for index in named(study)]
        started.append(Dicomscope(tmp_path, [*sources, study.objects["presentation-state"]]))
        started[0].open_last()
        return started[0]

    yield start
    for viewer in started:
        viewer.stop()


@pytest.mark.parametrize("name", FILMS)
def test_dicomscope_shows_the_film_itself_and_our_lines_on_it(
    dicomscope: Callable[[Study], Dicomscope], radiographs: dict[str, Study], screenshots: Path, name: str
) -> None:
    study = radiographs[name]
    viewer = dicomscope(study)
    viewer.photograph(screenshots / f"dicomscope-presentation-state-{name}.png")
    viewer.show_pixel_for_pixel()
    viewer.photograph(screenshots / f"dicomscope-one-to-one-{name}.png")
    screen, film = viewer.look().mean(axis=2), shown_grey(study.source())
    rows, columns = film.shape
    # A part with edges and without lines tells where the film lies on the screen.
    score, row, column = find(film[100:300, 300:660], screen)
    assert score > 0.999, "the film is not on the screen pixel for pixel"
    seen = screen[row - 100 : row - 100 + rows, column - 300 : column - 300 + columns]
    assert seen.shape == film.shape
    lines = contours(study)
    graphics = near(lines, film.shape, REACH)
    assert np.abs(seen - film)[~graphics].max() <= 1.0
    if lines:
        drawn = (np.abs(seen - film) > 40) & graphics
        assert drawn.sum() > 0.8 * near(lines, film.shape, 0).sum()
    else:
        assert name == "phantom-004"


def test_dicomscope_shows_a_slice_itself_and_our_lines_on_it(
    dicomscope: Callable[[Study], Dicomscope], head: Study, screenshots: Path
) -> None:
    viewer = dicomscope(head)
    # Lines begin some slices into those that mattered.
    for _ in range(len(named(head)) // 2):
        viewer.next_image()
    viewer.show_pixel_for_pixel()
    viewer.photograph(screenshots / f"dicomscope-one-to-one-{head.modality}.png")
    screen = viewer.look().mean(axis=2)
    places = {index: find(shown_grey(head.source(index)), screen) for index in named(head)}
    index = max(places, key=lambda each: places[each][0])
    _, row, column = places[index]
    film = shown_grey(head.source(index))
    seen = screen[row : row + film.shape[0], column : column + film.shape[1]]
    lines = contours(head, index)
    # In a stack DICOMscope draws lines up to two pixels beside their coordinates.
    graphics = near(lines, film.shape, 2 * REACH)
    assert np.abs(seen - film)[~graphics].max() <= 1.0
    assert ((np.abs(seen - film) > 40) & graphics).sum() > 0.8 * near(lines, film.shape, 0).sum() > 0


def test_dicomscope_shows_the_caption_below_the_film(
    dicomscope: Callable[[Study], Dicomscope], radiographs: dict[str, Study]
) -> None:
    study = radiographs["phantom-003"]
    viewer = dicomscope(study)
    viewer.show_pixel_for_pixel()
    screen, film = viewer.look().mean(axis=2), shown_grey(study.source())
    score, row, column = find(film[100:300, 300:660], screen)
    assert score > 0.999
    top, left = row - 100 + film.shape[0], column - 300
    below = screen[top:BOTTOM, left : left + film.shape[1]]
    lines = np.flatnonzero(np.diff(((below > 128).any(axis=1)).astype(int)) == 1).size
    texts = [
        each
        for annotation in study.object("presentation-state").GraphicAnnotationSequence
        for each in annotation.get("TextObjectSequence", [])
    ]
    assert lines >= len(texts) >= 3


@pytest.mark.parametrize("name", FILMS)
def test_dcmtk_renders_the_film_as_it_was_sent(radiographs: dict[str, Study], tmp_path: Path, name: str) -> None:
    """The second opinion: polarity, window and displayed area, without graphics."""
    study = radiographs[name]
    bitmap = tmp_path / "film.pgm"
    state = ["-p", str(study.objects["presentation-state"])]
    subprocess.run([require_tool("dcmp2pgm"), *state, str(study.sources[0]), str(bitmap)], check=True)
    rendered = np.asarray(Image.open(bitmap), dtype=np.float64)
    film = shown_grey(study.source())
    assert rendered.shape == film.shape
    assert np.abs(rendered - film).max() <= 1.0


def test_dcmtk_renders_each_slice_that_the_state_of_a_series_names(head: Study, tmp_path: Path) -> None:
    assert len(named(head)) > 1
    bitmap, state = tmp_path / "slice.pgm", head.objects["presentation-state"]
    for index in named(head):
        command = [require_tool("dcmp2pgm"), "-p", str(state), str(head.sources[index]), str(bitmap)]
        subprocess.run(command, check=True)
        rendered = np.asarray(Image.open(bitmap), dtype=np.float64)
        assert np.abs(rendered - shown_grey(head.source(index))).max() <= 1.0
