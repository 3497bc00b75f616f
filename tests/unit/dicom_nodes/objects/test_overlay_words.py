"""What stands on the large page: what it is not for, what is drawn, how far that may be trusted, what it is not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from readings import pneumonia

from dicom_nodes.objects import subject
from dicom_nodes.objects.comparison import _header as comparison_header
from dicom_nodes.objects.comparison import _legend as comparison_legend
from dicom_nodes.objects.legends import legend
from dicom_nodes.objects.orientation import NOT_STATED
from dicom_nodes.objects.overlay import AMBER, WHITE, _header, _titles, drawn, footer_lines, render_scene
from dicom_nodes.objects.read import SourceImage, read_image
from dicom_nodes.objects.scene import compared_scenes, default_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from dicom_nodes.objects.scene import Scene
    from dicom_nodes.objects.typesetting import Line
    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

FLAT = np.full((300, 240), 128, dtype=np.uint8)
SLOPE = np.linspace(0, 1, FLAT.size, dtype=np.float32).reshape(FLAT.shape)


@pytest.fixture
def read(source: Make, saved: Save) -> SourceImage:
    return read_image(saved(source(FLAT)))


def scene_of(read: SourceImage, result: Result) -> Scene:
    return default_scene(subject.of_image(read.header, read.image, result))


def words(lines: Iterable[Line]) -> str:
    return " ".join(line.text for line in lines)


def colour_of(lines: Iterable[Line], beginning: str) -> tuple[int, int, int]:
    (found,) = [line.colour for line in lines if line.text.startswith(beginning)]
    return found


def test_the_footer_begins_with_what_the_page_is_not_for(read: SourceImage, several: Results) -> None:
    first = footer_lines(scene_of(read, several(FLAT.shape)))[0]
    assert first.text == (
        "AI - research use, not for primary diagnosis. "
        "Colour shows what influenced the model, not the extent of disease."
    )
    assert first.colour == AMBER
    negative = footer_lines(scene_of(read, several(FLAT.shape, probability=0.1)))[0]
    assert negative.text.startswith("AI - research use, not for primary diagnosis. ")
    assert "it marks no disease" in negative.text
    assert "Colour" not in negative.text


def test_the_footer_names_contradictions_model_and_time(read: SourceImage, several: Results) -> None:
    lines = footer_lines(scene_of(read, several(FLAT.shape)))
    assert colour_of(lines, "Methods contradict each other: Grad-CAM and LIME mark different parts.") == AMBER
    assert "Model: Compact ResNet 1.0.0   Pellucid 0.1.0   2026-11-23 11:05 UTC" in words(lines)


def test_the_footer_tells_of_influence_that_is_not_drawn(read: SourceImage, result: Results) -> None:
    against = SLOPE - np.float32(0.5)
    assert "Influence against the finding exists and is not drawn." in words(
        footer_lines(scene_of(read, result(read.image, attribution=against)))
    )
    nothing = -SLOPE
    told = words(footer_lines(scene_of(read, result(read.image, attribution=nothing))))
    assert "Nothing in the image raised the probability by this method." in told
    plain = words(footer_lines(scene_of(read, result(read.image))))
    assert "Influence against" not in plain
    assert "Nothing in the image" not in plain


@pytest.mark.parametrize(
    ("method", "trust", "colour"),
    [(0, "Explanation: use with caution. The map moves", AMBER), (2, "Explanation: reliable by its measures.", WHITE)],
)
def test_only_a_reliable_map_is_called_so_in_white(
    read: SourceImage, several: Results, method: int, trust: str, colour: tuple[int, int, int]
) -> None:
    result = several(FLAT.shape)
    alone = dataclasses.replace(result, attributions=result.attributions[method : method + 1])
    assert colour_of(_titles(scene_of(read, alone))[1], trust) == colour


def test_a_map_that_nobody_measured_is_called_so_in_amber(read: SourceImage, result: Results) -> None:
    lines = _titles(scene_of(read, result(read.image)))[1]
    assert colour_of(lines, "Explanation: not assessed. Nothing was measured of this explanation") == AMBER


def test_a_map_that_stands_in_says_for_which_and_why(read: SourceImage, several: Results) -> None:
    result = several(FLAT.shape)
    caution, failed, reliable = result.attributions
    _, right = _titles(scene_of(read, dataclasses.replace(result, attributions=(failed, caution, reliable))))
    assert colour_of(right, "Drawn in place of LIME, which is not shown: Deleting its parts changes nothing.") == AMBER
    assert right[0].text.startswith("RISE for Pneumonia.")
    assert "in place of" not in words(_titles(scene_of(read, result))[1])


def test_a_film_that_does_not_state_its_sides_says_so(
    source: Make, saved: Save, read: SourceImage, result: Results
) -> None:
    silent = read_image(saved(source(FLAT, PatientOrientation=None)))
    assert colour_of(_titles(scene_of(silent, result(silent.image)))[0], NOT_STATED) == AMBER
    assert NOT_STATED not in words(_titles(scene_of(read, result(read.image)))[0])


def test_what_is_drawn_is_said_with_its_levels(read: SourceImage, result: Results) -> None:
    positive, negative = (scene_of(read, result(read.image, probability=value)) for value in (0.9, 0.1))
    assert drawn(positive) == "Grad-CAM for Pneumonia. Lines: 50 % and 80 % of the maximum."
    assert drawn(negative) == "Grad-CAM for Pneumonia. Below operating point: no colour; dashed line: 50 %."
    speckle = np.random.default_rng(0).random(FLAT.shape).astype(np.float32) ** 8
    assert drawn(scene_of(read, result(read.image, attribution=speckle))).endswith(" Smoothed for display.")


def test_the_head_names_every_finding_and_on_which_side_it_is(read: SourceImage, result: Results) -> None:
    plain = result(read.image)
    other = dataclasses.replace(pneumonia(0.2), label="Effusion")
    lines = _header(scene_of(read, dataclasses.replace(plain, findings=(*plain.findings, other))))
    assert [line.text for line in lines] == [
        "Pneumonia indicated (at or above operating point)",
        "Model probability 90.0 %   Operating point 'balanced': 50.0 %",
        "Effusion not indicated (below operating point): 20.0 %",
    ]
    assert [line.colour for line in lines] == [AMBER, WHITE, WHITE]
    assert _header(scene_of(read, result(read.image, probability=0.1)))[0].colour == WHITE


def test_each_method_of_a_comparison_has_its_own_legend(read: SourceImage, several: Results) -> None:
    (scenes,) = compared_scenes(subject.of_image(read.header, read.image, several(FLAT.shape)))
    cam, failed, rise = (comparison_legend(scene) for scene in scenes)
    assert words(cam) == f"{legend('grad-cam').reading} {legend('grad-cam').not_told}"
    assert words(rise) == f"{legend('rise').reading} {legend('rise').not_told}"
    assert failed == []
    assert "Not computed: SHAP: the time was over" in words(comparison_header(scenes[0], "Methods compared"))


def test_every_word_of_the_page_is_drawn(read: SourceImage, several: Results) -> None:
    scene = scene_of(read, several(FLAT.shape))
    page = render_scene(scene)
    left, right = _titles(scene)
    lines = [line for line in (*_header(scene), *left, *right, *footer_lines(scene)) if line.text.strip()]
    assert len(page.texts) >= len(lines)
    assert all(page.picture[top:bottom, start:end].any() for start, top, end, bottom in page.texts)
