"""Where the default map must not be shown, every object shows the same other one, and says so."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dicom_nodes.objects import (
    narrative,
    parametric_map,
    presentation_state,
    segmentation,
    structured_report,
    subject,
)
from dicom_nodes.objects.comparison import render_comparison
from dicom_nodes.objects.overlay import render_scene
from dicom_nodes.objects.pages import render_pages
from dicom_nodes.objects.read import SourceImage, read_image
from dicom_nodes.objects.scene import compared_scenes, default_scene
from dicom_nodes.objects.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

FLAT = np.full((300, 240), 128, dtype=np.uint8)
RISE = (0.35, 0.65)
"""Where the reliable map of `several` has its top, rows and columns."""


def default_withheld(result: Result) -> Result:
    """Name the method first whose map must not be shown, and the reliable one last."""
    caution, failed, reliable = result.attributions
    return dataclasses.replace(result, attributions=(failed, caution, reliable))


@pytest.fixture
def read(source: Make, saved: Save) -> SourceImage:
    return read_image(saved(source(FLAT)))


def test_a_reliable_map_stands_in_for_one_that_must_not_be_shown(read: SourceImage, several: Results) -> None:
    about = subject.of_image(read.header, read.image, default_withheld(several(FLAT.shape)))
    attribution, finding = subject.default_explanation(about.result)
    assert attribution is not None
    assert [each.title for each in subject.explanations_of(about.result, finding)] == ["RISE", "LIME", "Grad-CAM"]
    default = subject.stood_in_for(about.result, finding)
    assert default is not None
    assert default.title == "LIME"
    assert len(render_scene(default_scene(about)).films) == 2


def test_nothing_stands_in_for_a_map_that_may_be_shown_or_where_none_may(several: Results) -> None:
    result = several(FLAT.shape)
    (finding,) = result.findings
    # Use with caution is no reason to show another method than every day.
    assert [each.title for each in subject.explanations_of(result, finding)] == ["Grad-CAM", "LIME", "RISE"]
    assert subject.stood_in_for(result, finding) is None
    failed = dataclasses.replace(result, attributions=(result.attributions[1],) * 2)
    assert subject.stood_in_for(failed, finding) is None
    assert subject.stood_in_for(dataclasses.replace(result, attributions=()), finding) is None


def test_on_a_film_called_negative_nothing_stands_in(read: SourceImage, several: Results) -> None:
    result = default_withheld(several(FLAT.shape))
    (found,) = result.findings
    negative = dataclasses.replace(found, probability=found.operating_point.threshold / 2)
    about = subject.of_image(read.header, read.image, dataclasses.replace(result, findings=(negative,)))
    assert subject.stood_in_for(about.result, negative) is None
    scene = default_scene(about)
    assert scene.attribution is result.attributions[0]
    assert len(render_scene(scene).films) == 1


def test_without_a_reliable_map_the_first_that_may_be_shown_stands_in(several: Results) -> None:
    result = several(FLAT.shape)
    caution, failed, _ = result.attributions
    result = dataclasses.replace(result, attributions=(failed, caution))
    assert subject.explanations_of(result, result.findings[0])[0].title == "Grad-CAM"


def test_the_comparison_shows_what_the_first_page_does_not(read: SourceImage, several: Results) -> None:
    about = subject.of_image(read.header, read.image, default_withheld(several(FLAT.shape)))
    (scenes,) = compared_scenes(about)
    (page,) = render_comparison(scenes)
    # LIME, which failed, has words; Grad-CAM has a film.
    assert len(page.films) == 1
    assert len(render_pages(about).renderings) == 2


def test_the_report_outlines_the_map_that_is_shown_and_tells_why_it_is_not_the_usual_one(
    read: SourceImage, several: Results
) -> None:
    result = default_withheld(several(FLAT.shape))
    written = structured_report.build(read.header, read.image, result)
    summary = summarize(written)
    assert summary is not None
    assert summary.method == "RISE"
    points = np.concatenate([np.array(item).reshape(-1, 2) for item in _coordinates(written)[:1]])
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    assert np.allclose(middle, (RISE[1] * FLAT.shape[1], RISE[0] * FLAT.shape[0]), atol=1.5)
    about = subject.of_image(read.header, read.image, result)
    told = "Pneumonia: pictures and regions show RISE in place of LIME, which is not shown."
    assert told in narrative.explanations(about)
    assert told in narrative.verdicts(about)
    assert narrative.verdicts(about)[0].startswith("RISE for Pneumonia: reliable")
    reading = next(each for each in narrative.short_sections(about) if each.heading.value == "how-to-read")
    assert any(line.startswith("RISE:") for line in reading.lines)
    assert not any(line.startswith("LIME:") for line in reading.lines)


def test_outlines_over_the_film_are_those_of_the_map_that_is_shown(read: SourceImage, several: Results) -> None:
    state = presentation_state.build(read.header, read.image, default_withheld(several(FLAT.shape)))
    lines = [item for group in state.GraphicAnnotationSequence for item in group.get("GraphicObjectSequence", ())]
    points = np.array(lines[0].GraphicData).reshape(-1, 2)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    assert np.allclose(middle, (RISE[1] * FLAT.shape[1], RISE[0] * FLAT.shape[0]), atol=1.5)
    words = " ".join(
        item.UnformattedTextValue
        for group in state.GraphicAnnotationSequence
        for item in group.get("TextObjectSequence", ())
    )
    assert "RISE for Pneumonia (LIME is not shown), 50 % and 80 %; reliable" in words


def test_the_objects_of_a_series_hold_the_map_that_is_shown(stack: Callable[..., tuple], several: Results) -> None:
    headers, series = stack()
    usual = several(series.slices[0].grey.shape, slices=len(headers))
    withheld = default_withheld(usual)
    reliable = dataclasses.replace(usual, attributions=usual.attributions[2:])
    for module in (parametric_map, segmentation):
        shown, expected = (module.build_series(headers, series, result) for result in (withheld, reliable))
        name = "FloatPixelData" if module is parametric_map else "PixelData"
        assert shown[name].value == expected[name].value


def _coordinates(written: Dataset) -> list[list[float]]:
    found = []

    def visit(item: Dataset) -> None:
        names = item.get("ConceptNameCodeSequence")
        if names and names[0].CodeValue == "111030" and item.ValueType == "SCOORD":
            found.append(list(item.GraphicData))
        for child in item.get("ContentSequence", ()):
            visit(child)

    visit(written)
    return found
