"""What a radiologist sees of the results of a CT and of an MR series in OHIF."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from viewers.pictures import coloured, fit, likeness, overlap, shown_colour, shown_grey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from viewers.ohif import Ohif
    from viewers.pictures import Grey
    from viewers.studies import Study

    Open = Callable[..., Ohif]


def slice_on_screen(viewer: Ohif, study: Study) -> int:
    """Return which slice is shown, by its pixels: the index in geometric order."""
    seen = viewer.canvas()
    scores = []
    for index in range(len(study.sources)):
        grey = shown_grey(study.source(index))
        scores.append(likeness(seen, fit(grey.shape, seen.shape[:2]).draw(grey, seen.shape[:2])))
    assert max(scores) > 0.9, scores
    return int(np.argmax(scores))


def marked(values: Grey, canvas: tuple[int, int]) -> np.ndarray:
    """Return a mask of the image as it should lie in the canvas."""
    drawn = fit(values.shape, canvas).draw(values * 255.0, canvas)
    return drawn[..., 0] > 127


def test_frames_of_the_heatmap_can_be_paged(ohif: Open, head: Study, screenshots: Path) -> None:
    viewer = ohif(head)
    viewer.open("AI heatmap")
    viewer.photograph(screenshots / f"ohif-series-secondary-capture-{head.modality}.png")
    assert not viewer.plays()
    capture = head.object("secondary-capture")
    frames = int(capture.NumberOfFrames)
    assert frames > 1
    for frame in range(2):
        seen = viewer.canvas()
        expected = shown_colour(capture, frame)
        drawn = fit(expected.shape[:2], seen.shape[:2]).draw(expected, seen.shape[:2])
        assert likeness(seen, drawn, blur=5) > 0.98, frame
        viewer.scroll(1)


def test_the_segmentation_lies_on_the_region(ohif: Open, head: Study, screenshots: Path) -> None:
    viewer = ohif(head)
    viewer.open("AI regions")
    viewer.page.get_by_text("Yes", exact=True).click()
    viewer.settle()
    viewer.photograph(screenshots / f"ohif-segmentation-{head.modality}.png")
    seen = viewer.canvas()
    assert head.map is not None
    expected = marked((head.map[slice_on_screen(viewer, head)] >= 0.5).astype(float), seen.shape[:2])
    assert expected.sum() > 100
    assert overlap(coloured(seen), expected) > 0.75


def test_the_parametric_map_lies_on_the_slices_that_it_explains(ohif: Open, head: Study, screenshots: Path) -> None:
    # A map leaves its colours behind in the viewport: OHIF shows what is opened after it in false colours, too.
    viewer = ohif(head, fresh=True)
    viewer.open("AI map")
    assert head.map is not None
    strongest = int(head.map.max(axis=(1, 2)).argmax())
    # OHIF opens a map in the middle of the series; the reader scrolls to it.
    for _ in range(3):
        steps = slice_on_screen(viewer, head) - strongest
        if steps:
            viewer.scroll(steps)
    viewer.photograph(screenshots / f"ohif-parametric-map-{head.modality}.png")
    assert slice_on_screen(viewer, head) == strongest
    seen = viewer.canvas()
    values = head.map[strongest] / head.map.max()
    assert overlap(coloured(seen), marked((values >= 0.1).astype(float), seen.shape[:2])) > 0.75


def test_the_report_draws_a_region_on_its_slice(ohif: Open, head: Study, screenshots: Path) -> None:
    viewer = ohif(head)
    viewer.open_with_lines("AI report")
    viewer.photograph(screenshots / f"ohif-series-structured-report-{head.modality}.png")
    seen = viewer.canvas()
    assert head.map is not None
    index = slice_on_screen(viewer, head)
    (line,) = viewer.drawn_lines()
    centre = np.mean(line, axis=0)
    there = marked((head.map[index] >= 0.5 * head.map.max()).astype(float), seen.shape[:2])
    rows, columns = np.nonzero(there)
    assert np.abs(centre - (columns.mean(), rows.mean())).max() < 6
    assert any("Certainty of Finding: 87.00 %" in label for label in viewer.labels())


def test_the_text_report_names_the_slices(ohif: Open, head: Study) -> None:
    viewer = ohif(head)
    viewer.open("AI text report")
    assert re.search(r"slices that mattered: Slice \d+ of 24", viewer.text())


def test_key_objects_and_presentation_states_are_listed_but_not_drawn(ohif: Open, head: Study) -> None:
    """A limit of OHIF 3.13: when this fails, docs/viewers.md can say something better."""
    viewer = ohif(head)
    viewer.open("S:2")
    before = viewer.canvas()
    for description in ("AI key slices", "AI outlines"):
        assert viewer.thumbnail(description).count() == 1
        viewer.open(description)
        assert viewer.drawn_lines() == []
        assert likeness(viewer.canvas(), before) > 0.999
