"""A film with a different mark in each corner: no object's coordinates are flipped, turned or stretched."""

from __future__ import annotations

import itertools
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import Dataset
from require import require_tool

from dicom_nodes.objects import pdf_report, presentation_state, structured_report
from dicom_nodes.objects.orientation import Edges, edges
from dicom_nodes.objects.read import read_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import FileDataset

    from dicom_nodes.objects.read import SourceImage
    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

SHAPES = [(120, 120), (90, 180), (180, 90)]
ROWS, COLUMNS = ("L", "R", "A", "P"), ("F", "H")
ORIENTATIONS = [*([row, column] for row in ROWS for column in COLUMNS), ["F", "L"], ["AL", "FP"], None]
POLARITIES = ["MONOCHROME1", "MONOCHROME2"]
ASPECTS: list[dict[str, Any]] = [
    {},
    {"PixelAspectRatio": ["2", "1"]},
    {"PixelSpacing": ["0.1", "0.2"]},
    {"ImagerPixelSpacing": ["0.2", "0.1"]},
]
MARKS = {"upper left": 250, "upper right": 190, "lower left": 130, "lower right": 70}
GROUND = 20


def marked(shape: tuple[int, int]) -> np.ndarray:
    """Every corner has a grey of its own, as it is to be seen."""
    grid = np.full(shape, GROUND, dtype=np.uint8)
    size = min(shape) // 6
    for place, corner in corners(shape, size).items():
        grid[corner] = MARKS[place]
    return grid


def corners(shape: tuple[int, int], size: int) -> dict[str, tuple[slice, slice]]:
    ends = {"upper": slice(0, size), "lower": slice(shape[0] - size, None)}
    sides = {"left": slice(0, size), "right": slice(shape[1] - size, None)}
    return {f"{end} {side}": (rows, columns) for end, rows in ends.items() for side, columns in sides.items()}


def film(source: Make, saved: Save, shape: tuple[int, int], polarity: str, **attributes: Any) -> SourceImage:
    seen = marked(shape)
    stored = 255 - seen if polarity == "MONOCHROME1" else seen
    return read_image(saved(source(stored, PhotometricInterpretation=polarity, **attributes)))


def map_on(read: SourceImage, level: int) -> np.ndarray:
    """The model looks at one mark alone, found by how bright the film that was read is there."""
    return (np.abs(read.image.grey * 255 - level) < 5).astype(np.float32)


def stored_at(dataset: Dataset, points: np.ndarray) -> int:
    """What the file itself has at the centre of an outline, as it is to be seen."""
    column, row = ((points.min(axis=0) + points.max(axis=0)) / 2).astype(int)
    pixels = np.frombuffer(dataset.PixelData, dtype=np.uint8)[: dataset.Rows * dataset.Columns]
    value = int(pixels.reshape(dataset.Rows, dataset.Columns)[row, column])
    return 255 - value if dataset.PhotometricInterpretation == "MONOCHROME1" else value


def outlines(dataset: Dataset) -> list[np.ndarray]:
    """Every line of a report or a presentation state, (n, 2) as column and row."""
    return [
        np.array(item.GraphicData).reshape(-1, 2)
        for sequence in dataset.iterall()
        if sequence.VR == "SQ"
        for item in sequence.value
        if "GraphicData" in item
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("polarity", POLARITIES)
def test_an_outline_lies_on_the_mark_that_the_model_looked_at(
    source: Make, saved: Save, result: Results, shape: tuple[int, int], polarity: str
) -> None:
    marks = itertools.cycle(MARKS.items())
    for (aspect, orientation), (place, level) in zip(itertools.product(ASPECTS, ORIENTATIONS), marks, strict=False):
        attributes = {"PatientOrientation": orientation, **aspect}
        written = source(marked(shape), PhotometricInterpretation=polarity, **attributes)
        if polarity == "MONOCHROME1":
            written.PixelData = (255 - marked(shape)).tobytes()
        read = read_image(saved(written))
        found = result(read.image, attribution=map_on(read, level))
        for build in (structured_report.build, presentation_state.build):
            lines = outlines(build(read.header, read.image, found))
            assert lines, place
            for line in lines:
                assert stored_at(written, line) == level, (place, orientation, aspect)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("aspect", ASPECTS)
def test_the_page_shows_each_mark_in_its_corner_and_the_outline_on_its_mark(  # noqa: PLR0917 - fixtures and a table
    source: Make,
    saved: Save,
    result: Results,
    tmp_path: Path,
    shape: tuple[int, int],
    polarity: str,
    aspect: dict[str, Any],
) -> None:
    # Orientation moves nothing on the page but two letters, so each film gets another one.
    turn = (SHAPES.index(shape) * 8 + POLARITIES.index(polarity) * 4 + ASPECTS.index(aspect)) % len(ORIENTATIONS)
    read = film(source, saved, shape, polarity, PatientOrientation=ORIENTATIONS[turn], **aspect)
    dataset = pdf_report.build(read.header, read.image, result(read.image, attribution=map_on(read, 190)))
    (tmp_path / "page.pdf").write_bytes(dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength])
    command = [require_tool("pdfimages"), "-png", str(tmp_path / "page.pdf"), str(tmp_path / "film")]
    subprocess.run(command, check=True)
    plain, explained = (pixels(path) for path in sorted(tmp_path.glob("film-*.png")))
    height, width = plain.shape[:2]
    ratio = {"PixelAspectRatio": 2.0, "PixelSpacing": 0.5, "ImagerPixelSpacing": 2.0}.get(next(iter(aspect), ""), 1.0)
    assert height / width == pytest.approx(ratio * shape[0] / shape[1], rel=0.02)
    size = min(height, width) // 16
    for place, corner in corners((height, width), size).items():
        assert np.abs(plain[corner].mean() - MARKS[place]) < 8, place
        if place != "upper right":
            assert np.abs(explained[corner].mean() - MARKS[place]) < 8, place
    coloured = np.ptp(explained.astype(int), axis=2) > 40
    rows, columns = np.nonzero(coloured)
    assert rows.max() < height / 2
    assert columns.min() > width / 2


def pixels(path: Path) -> np.ndarray:
    with Picture.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_page_says_which_side_is_which(source: Make, saved: Save, result: Results, tmp_path: Path) -> None:
    for orientation, expected in ((["L", "F"], ["R", "L"]), (["R", "F"], ["L", "R"]), (["P", "F"], ["A", "P"])):
        read = film(source, saved, (120, 100), "MONOCHROME2", PatientOrientation=orientation)
        dataset = pdf_report.build(read.header, read.image, result(read.image))
        (tmp_path / "page.pdf").write_bytes(dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength])
        said = subprocess.run(
            [require_tool("pdftotext"), "-layout", str(tmp_path / "page.pdf"), "-"],
            capture_output=True,
            text=True,
            check=True,
        )
        letters = [line.split() for line in said.stdout.splitlines() if set(line.split()) == set(expected)]
        assert letters == [expected * 2]


CT = {"PatientOrientation": None}
HEAD_FIRST_SUPINE = ["1", "0", "0", "0", "1", "0"]


def lying(cosines: list[str]) -> Dataset:
    """Say how an image lies in the way of enhanced images."""
    groups, plane = Dataset(), Dataset()
    plane.ImageOrientationPatient = cosines
    groups.PlaneOrientationSequence = [plane]
    return groups


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PatientOrientation": ["L", "F"]}, Edges(left="R", right="L", upper="H", lower="F")),
        ({"PatientOrientation": ["R", "F"]}, Edges(left="L", right="R", upper="H", lower="F")),
        ({"PatientOrientation": ["AL", "FP"]}, Edges(left="PR", right="AL", upper="HA", lower="FP")),
        (CT | {"ImageOrientationPatient": HEAD_FIRST_SUPINE}, Edges(left="R", right="L", upper="A", lower="P")),
        (
            CT | {"ImageOrientationPatient": ["0", "1", "0", "0", "0", "-1"]},
            Edges(left="A", right="P", upper="H", lower="F"),
        ),
        (
            CT | {"ImageOrientationPatient": ["0.8", "0.6", "0", "0", "0", "-1"]},
            Edges(left="RA", right="LP", upper="H", lower="F"),
        ),
        # Six degrees off is still what it is called.
        (
            CT | {"ImageOrientationPatient": ["0.9945", "0.1045", "0", "0", "0", "-1"]},
            Edges(left="R", right="L", upper="H", lower="F"),
        ),
        (CT | {"ImageOrientationPatient": ["0", "0", "0", "0", "1", "0"]}, None),
        (
            CT | {"SharedFunctionalGroupsSequence": [lying(HEAD_FIRST_SUPINE)]},
            Edges(left="R", right="L", upper="A", lower="P"),
        ),
        (CT, None),
        ({"PatientOrientation": ["L"]}, None),
        ({"PatientOrientation": ["RT", "V"]}, None),
        ({"PatientOrientation": ["", ""]}, None),
    ],
)
def test_letters_at_the_edges_are_what_the_source_states(
    source: Make, attributes: dict[str, Any], expected: Edges | None
) -> None:
    assert edges(source(**attributes)) == expected


def test_letters_in_lower_case_are_understood(source: Make) -> None:
    dataset = source(PatientOrientation=None)
    dataset.add_new("PatientOrientation", "LO", ["l", "f"])
    assert edges(dataset) == Edges(left="R", right="L", upper="H", lower="F")
