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


def contours(study: Study) -> list[np.ndarray]:
    """Return the lines of the presentation state, (n, 2) from the corner of the first pixel."""
    return [
        np.array(graphic.GraphicData).reshape(-1, 2)
        for annotation in study.object("presentation-state").GraphicAnnotationSequence
        for graphic in annotation.get("GraphicObjectSequence", [])
    ]


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
        started.append(Dicomscope(tmp_path, [study.sources[0], study.objects["presentation-state"]]))
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
    state = head.object("presentation-state")
    named = {item.ReferencedSOPInstanceUID for item in state.ReferencedSeriesSequence[0].ReferencedImageSequence}
    assert len(named) > 1
    for index, path in enumerate(head.sources):
        source = head.source(index)
        if source.SOPInstanceUID not in named:
            continue
        bitmap = tmp_path / "slice.pgm"
        command = [require_tool("dcmp2pgm"), "-p", str(head.objects["presentation-state"]), str(path), str(bitmap)]
        subprocess.run(command, check=True)
        rendered = np.asarray(Image.open(bitmap), dtype=np.float64)
        assert np.abs(rendered - shown_grey(source)).max() <= 1.0
