from __future__ import annotations

import dataclasses
import io
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import dcmread
from require import require_tool

from dicom_nodes.objects import secondary_capture, text_report
from dicom_nodes.objects.pdf_report import build, build_series
from dicom_nodes.objects.read import read_image
from dicom_nodes.objects.write import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]


def pdf_of(dataset: Dataset, folder: Path) -> Path:
    """Take the document out, as a viewer does: without the byte that makes its length even."""
    written = dcmread(io.BytesIO(to_bytes(dataset)))
    path = folder / "page.pdf"
    path.write_bytes(written.EncapsulatedDocument[: written.EncapsulatedDocumentLength])
    return path


def said(tool: str, *arguments: str) -> str:
    done = subprocess.run([require_tool(tool), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("shape", [(120, 100), (60, 240), (240, 60)])
def test_it_is_one_page_that_says_everything(
    source: Make, saved: Save, several: Results, tmp_path: Path, shape: tuple[int, int]
) -> None:
    read = read_image(saved(source(np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape))))
    path = pdf_of(build(read.header, read.image, several(shape)), tmp_path)
    assert "Pages:           1\n" in said("pdfinfo", str(path))
    words = " ".join(said("pdftotext", "-layout", str(path), "-").split())
    for expected in (
        "Pneumonia indicated (at or above operating point)",
        "AI - research use, not for primary diagnosis.",
        "screening",
        "balanced (in use)",
        "not the extent of disease",
        "LIME for Pneumonia: not shown",
        "Methods contradict each other",
        "Not validated on adults.",
        read.header.SOPInstanceUID[:20],
    ):
        assert expected in words


def test_the_films_are_on_the_page_the_right_way_up(source: Make, saved: Save, result: Results, tmp_path: Path) -> None:
    grid = np.full((200, 200), 20, dtype=np.uint8)
    grid[:40, :40], grid[:40, -40:], grid[-40:, :40] = 250, 170, 90
    read = read_image(saved(source(grid)))
    path = pdf_of(build(read.header, read.image, result(read.image, probability=0.1)), tmp_path)
    said("pdftoppm", "-r", "60", "-gray", "-singlefile", "-png", str(path), str(tmp_path / "page"))
    with Picture.open(tmp_path / "page.png") as page:
        grey = np.asarray(page.convert("L"), dtype=int)
    dark = np.abs(grey - 20) < 6
    rows = np.nonzero(dark.sum(axis=1) > 100)[0]
    columns = np.nonzero(dark[: grey.shape[0]].sum(axis=0) > 60)[0]
    top, bottom, left = rows.min(), rows.max(), columns.min()
    right = left + bottom - top
    assert abs(grey[top + 6, left + 6] - 250) < 10
    assert abs(grey[top + 6, right - 6] - 170) < 10
    assert abs(grey[bottom - 6, left + 6] - 90) < 10


@pytest.mark.parametrize(("probability", "side"), [(0.5, "at or above"), (0.3, "below")])
def test_the_table_has_each_operating_point_with_its_figures(  # noqa: PLR0917 - four fixtures and a row of the table
    source: Make, saved: Save, result: Results, tmp_path: Path, probability: float, side: str
) -> None:
    read = read_image(saved(source()))
    path = pdf_of(build(read.header, read.image, result(read.image, probability=probability)), tmp_path)
    rows = [" ".join(line.split()) for line in said("pdftotext", "-layout", str(path), "-").splitlines()]
    told = f"Pneumonia {100 * probability:.1f} %"
    assert f"{told} screening 5.0 % 99.0 % 70.0 % at or above" in rows
    assert f"{told} balanced (in use) 50.0 % 96.0 % 94.0 % {side}" in rows
    heads = next(row for row in rows if row.startswith("Finding"))
    assert heads == "Finding Probability Operating point Threshold Sensitivity* Specificity* Result"


def test_a_film_that_does_not_state_its_sides_says_so_on_the_page(
    source: Make, saved: Save, result: Results, tmp_path: Path
) -> None:
    for orientation, expected in ((None, True), (["L", "F"], False)):
        read = read_image(saved(source(PatientOrientation=orientation)))
        path = pdf_of(build(read.header, read.image, result(read.image)), tmp_path)
        words = " ".join(said("pdftotext", str(path), "-").split())
        assert ("The image does not state which side is which." in words) is expected


def test_no_patient_is_named_on_it(source: Make, saved: Save, result: Results, tmp_path: Path) -> None:
    read = read_image(saved(source(PatientName="Unmistakable^Name", PatientID="ID4711", AccessionNumber="ACC99")))
    dataset = build(read.header, read.image, result(read.image))
    words = said("pdftotext", str(pdf_of(dataset, tmp_path)), "-")
    assert not any(secret in words for secret in ("Unmistakable", "ID4711", "ACC99", "1970"))
    assert "Unmistakable" not in dataset.DocumentTitle


def test_a_label_that_no_face_draws_gives_way_to_its_codes_meaning(
    source: Make, saved: Save, result: Results, tmp_path: Path
) -> None:
    read = read_image(saved(source()))
    plain = result(read.image)
    label = "肺炎"
    japanese = dataclasses.replace(
        plain,
        findings=(dataclasses.replace(plain.findings[0], label=label),),
        attributions=(dataclasses.replace(plain.attributions[0], finding=label),),
        model=dataclasses.replace(plain.model, title="Größe 肺", limits="≥ 16 Jahre"),
    )
    words = said("pdftotext", "-layout", str(pdf_of(build(read.header, read.image, japanese), tmp_path)), "-")
    assert "Pneumonia indicated" in words
    assert "Grad-CAM for Pneumonia" in words
    assert "Größe ?" in words
    assert ">= 16 Jahre" in words or "≥ 16 Jahre" in words
    drawn = secondary_capture.build_single(read.header, read.image, japanese)
    assert drawn.ImageComments.startswith("Pneumonia indicated")
    assert label.encode() in to_bytes(text_report.build(read.header, read.image, japanese))


def test_building_twice_gives_equal_bytes(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    one, two = (to_bytes(build(read.header, read.image, several(read.image.grey.shape))) for _ in range(2))
    assert one == two


def test_it_refers_to_every_slice_of_a_series(stack: Callable[..., tuple], several: Results, tmp_path: Path) -> None:
    headers, series = stack(5)
    dataset = build_series(headers, series, several((64, 48), slices=5))
    assert len(dataset.SourceInstanceSequence) == 5
    assert "slice 3 of 5" in said("pdftotext", str(pdf_of(dataset, tmp_path)), "-")
    assert (dataset.Modality, dataset.SeriesNumber) == ("DOC", 9006)
