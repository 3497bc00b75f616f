"""What a radiologist sees of a chest film's results in OHIF."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from require import require_tool
from viewers.pictures import coloured, find, fit, likeness, overlap, shown_colour, shown_grey, widest_white

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom import Dataset
    from viewers.ohif import Ohif
    from viewers.studies import Study

    Open = Callable[..., Ohif]


def descend(item: Dataset) -> Iterator[Dataset]:
    """Walk a report's content items."""
    yield item
    for child in item.get("ContentSequence", []):
        yield from descend(child)


def outlines(report: Dataset) -> list[np.ndarray]:
    """Return the polylines of a report's measurement groups, (n, 2) in image coordinates."""
    groups = [item for item in descend(report) if name_of(item) == "Measurement Group"]
    return [
        np.array(item.GraphicData).reshape(-1, 2)
        for group in groups
        for item in group.ContentSequence
        if "GraphicData" in item
    ]


def name_of(item: Dataset) -> str:
    """Return the meaning of a content item's concept."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeMeaning) if names else ""


def measurements(report: Dataset) -> list[tuple[str, float]]:
    """Return names and numbers of a report."""
    return [
        (item.ConceptNameCodeSequence[0].CodeMeaning, float(item.MeasuredValueSequence[0].NumericValue))
        for item in descend(report)
        if item.get("ValueType") == "NUM"
    ]


@pytest.mark.parametrize("name", ["phantom-003", "phantom-004"])
def test_the_film_is_shown_as_it_was_sent(ohif: Open, radiographs: dict[str, Study], name: str) -> None:
    study = radiographs[name]
    viewer = ohif(study)
    viewer.open("Chest PA")
    seen = viewer.canvas()
    expected = shown_grey(study.source())
    drawn = fit(expected.shape, seen.shape[:2]).draw(expected, seen.shape[:2])
    assert likeness(seen, drawn) > 0.99


@pytest.mark.parametrize("name", ["phantom-003", "phantom-004"])
def test_the_heatmap_is_seen_with_its_colours(
    ohif: Open, radiographs: dict[str, Study], screenshots: Path, name: str
) -> None:
    study = radiographs[name]
    viewer = ohif(study)
    viewer.open("AI heatmap")
    viewer.photograph(screenshots / f"ohif-secondary-capture-{name}.png")
    assert not viewer.plays(), "pages are no moving picture"
    seen = viewer.canvas()
    expected = shown_colour(study.object("secondary-capture"))
    drawn = fit(expected.shape[:2], seen.shape[:2]).draw(expected, seen.shape[:2])
    assert likeness(seen, drawn, blur=5) > 0.98
    assert np.abs(seen - drawn).mean() < 8
    assert overlap(coloured(seen, least=15, blur=9), coloured(drawn, least=15, blur=9)) > 0.7


def test_the_report_draws_each_region_where_it_was_measured(ohif: Open, positive: Study, screenshots: Path) -> None:
    viewer = ohif(positive)
    viewer.open_with_lines("AI report")
    viewer.photograph(screenshots / "ohif-structured-report.png")
    report = positive.object("structured-report")
    canvas = viewer.canvas()
    placed = fit(positive.source().pixel_array.shape, canvas.shape[:2])
    expected = [placed.place(points) for points in outlines(report)]
    drawn = [np.array(points) for points in viewer.drawn_lines()]
    assert len(drawn) == len(expected) >= 1
    for region in expected:
        assert any(one.shape == region.shape and np.abs(one - region).max() < 1.0 for one in drawn)


def test_the_report_says_probability_threshold_share_and_area_on_the_film(ohif: Open, positive: Study) -> None:
    viewer = ohif(positive)
    viewer.open_with_lines("AI report")
    said = " | ".join(viewer.labels())
    numbers = measurements(positive.object("structured-report"))
    for name in ("Certainty of Finding", "Operating point", "Share of influence", "Area"):
        found = [value for meaning, value in numbers if meaning.startswith(name)]
        assert any(f"{value:.2f}" in said for value in found), said
        assert name in said


def test_a_negative_report_says_its_numbers_and_outlines_nothing(
    ohif: Open, negative: Study, screenshots: Path
) -> None:
    viewer = ohif(negative)
    viewer.open_with_lines("AI report")
    viewer.photograph(screenshots / "ohif-structured-report-negative.png")
    film = shown_grey(negative.source())
    canvas = viewer.canvas()
    placed = fit(film.shape, canvas.shape[:2])
    assert likeness(canvas, placed.draw(film, canvas.shape[:2])) > 0.99
    for line in viewer.drawn_lines():
        assert np.ptp(line, axis=0).max() < 1.0
    told = [re.match(r"Probability of Pneumonia: ([\d.]+) %", label) for label in viewer.labels()]
    assert [float(found[1]) < 10 for found in told if found] == [True]
    # Whole, at the upper edge of the film, and not over the viewer's own text.
    height, width = viewer.screen().shape[:2]
    for left, top, right, bottom in viewer.label_boxes():
        assert placed.left - 1 <= left < right <= width
        assert 0 <= top < bottom <= height / 3


def test_every_sentence_of_the_text_report_can_be_read(ohif: Open, positive: Study, screenshots: Path) -> None:
    viewer = ohif(positive)
    viewer.open("AI text report")
    viewer.photograph(screenshots / "ohif-text-report.png")
    shown = " ".join(viewer.text().split())
    report = positive.object("text-report")
    sentences = [item.TextValue for item in descend(report) if item.get("ValueType") == "TEXT"]
    assert len(sentences) > 10
    for sentence in sentences:
        assert " ".join(sentence.split()) in shown
    # OHIF sets findings in a fixed pitch and does not break their lines: what is longer is cut at the edge.
    widths = viewer.page.locator("pre").evaluate_all("all => all.map(each => [each.scrollWidth, each.clientWidth])")
    assert widths
    assert all(needed <= there for needed, there in widths), widths


def test_the_page_for_humans_is_shown(ohif: Open, positive: Study, screenshots: Path, tmp_path: Path) -> None:
    viewer = ohif(positive)
    viewer.open("AI page")
    viewer.photograph(screenshots / "ohif-pdf-report.png")
    (tmp_path / "page.pdf").write_bytes(positive.object("pdf-report").EncapsulatedDocument)
    screen = viewer.screen().mean(axis=2)
    # The browser scales the page to the viewport: its white width tells how much.
    command = [require_tool("pdftoppm"), "-gray", "-singlefile", "-scale-to-x", str(widest_white(screen))]
    pages = [str(tmp_path / "page.pdf"), str(tmp_path / "page")]
    subprocess.run([*command, "-scale-to-y", "-1", *pages], check=True)
    page = np.asarray(Image.open(tmp_path / "page.pgm"), dtype=np.float64)
    assert page.shape[1] > 400
    # From the heading over the table to the lower edge of the pictures.
    score, _, _ = find(page[40:460, 20:-20], screen)
    assert score > 0.9


def test_a_presentation_state_is_listed_but_not_drawn(ohif: Open, positive: Study, screenshots: Path) -> None:
    """A limit of OHIF 3.13: when this fails, docs/viewers.md can say something better."""
    viewer = ohif(positive)
    viewer.open("Chest PA")
    before = viewer.canvas()
    viewer.open("AI outlines")
    viewer.photograph(screenshots / "ohif-presentation-state.png")
    assert viewer.drawn_lines() == []
    assert likeness(viewer.canvas(), before) > 0.999
