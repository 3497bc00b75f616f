"""The pages that lay methods side by side, each with its verdict and its legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from dicom_nodes.objects import captions
from dicom_nodes.objects.legends import legend
from dicom_nodes.objects.overlay import (
    AMBER,
    GAP,
    MOST_DOUBTS,
    QUIET,
    SIDES,
    WHITE,
    draw_sides,
    footer_lines,
    trust_colour,
    withheld_lines,
)
from dicom_nodes.objects.panels import LARGEST_PANEL, Rendering, even, explained_panel, scene_size
from dicom_nodes.objects.typesetting import Line, Strip, corner_rows, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_nodes.objects.panels import Box
    from dicom_nodes.objects.scene import Scene

ACROSS = 2
"""Methods on one page, as large as the first page's films: frames of one object share a spacing."""
_SCALES = "Every map has its own relative scale; maps of different methods differ in meaning."


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One method's place on the page."""

    scene: Scene
    title: Strip
    legend: Strip


def render_comparison(scenes: Sequence[Scene], largest: int = LARGEST_PANEL) -> list[Rendering]:
    """Draw scenes of one finding, two a page.

    Of an odd number the first is left out: it has the page before to itself.

    Args:
        scenes: one per method, of the same film and finding.
        largest: side of a panel in pixels at most.
    """
    whole = len(scenes) % ACROSS == 0
    chosen = scenes if whole else scenes[1:]
    heading = "Methods compared" if whole else "Other methods"
    groups = [chosen[start : start + ACROSS] for start in range(0, len(chosen), ACROSS)]
    return [_page(group, heading, largest) for group in groups]


def _page(scenes: Sequence[Scene], heading: str, largest: int) -> Rendering:
    width, height = scene_size(scenes[0], largest)
    total = ACROSS * width + (ACROSS - 1) * GAP
    corners = corner_rows(total)
    header = fit(_header(scenes[0], heading), total, above=corners)
    footer = fit(footer_lines(_neutral(scenes)), total)
    cells = [_Cell(scene=scene, title=fit(_title(scene), width), legend=fit(_legend(scene), width)) for scene in scenes]
    top = header.height + max(cell.title.height for cell in cells) + SIDES
    below = top + height + max(cell.legend.height for cell in cells)
    canvas = Picture.new("RGB", (even(total), even(below + footer.height + corners * 2 // 3)))
    pen = ImageDraw.Draw(canvas)
    boxes = header.draw(pen, 0, 0) + footer.draw(pen, 0, below)
    films: list[Box] = []
    for place, cell in enumerate(cells):
        left = place * (width + GAP)
        boxes += cell.title.draw(pen, left, header.height)
        if cell.scene.withheld:
            boxes += fit(withheld_lines(cell.scene), width).draw(pen, left, top + height // 3)
        else:
            canvas.paste(explained_panel(cell.scene, (width, height)), (left, top))
            films.append((left, top, left + width, top + height))
            boxes += draw_sides(pen, cell.scene, films[-1])
        boxes += cell.legend.draw(pen, left, top + height)
    return Rendering(picture=np.asarray(canvas, dtype=np.uint8), films=tuple(films), texts=tuple(boxes))


def _neutral(scenes: Sequence[Scene]) -> Scene:
    """Return the scene whose footer fits all: one that is drawn, where there is one."""
    return next((scene for scene in scenes if not scene.withheld), scenes[0])


def _header(scene: Scene, heading: str) -> list[Line]:
    place = f"   {scene.place}" if scene.place else ""
    tint = AMBER if scene.finding.positive else WHITE
    lines = [
        Line(text=f"{heading}: {captions.verdict(scene.finding)}", size=44, colour=tint),
        Line(text=f"{captions.probability(scene.finding)}{place}", size=30, colour=WHITE),
        Line(text=_SCALES, size=28, colour=QUIET),
    ]
    lines += [Line(text=f"Not computed: {text}", size=28, colour=QUIET) for text in scene.result.unavailable]
    return lines


def _title(scene: Scene) -> list[Line]:
    attribution = scene.attribution
    if attribution is None:
        return []
    lines = [Line(text=attribution.title, size=34, colour=WHITE)]
    lines.append(Line(text=f"Explanation: {captions.trust(attribution)}", size=30, colour=trust_colour(attribution)))
    if not scene.withheld:
        smoothed = "Smoothed for display." if scene.smoothed else ""
        lines.append(
            Line(text=f"{captions.doubts(attribution, MOST_DOUBTS)} {smoothed}".strip(), size=26, colour=QUIET)
        )
    return lines


def _legend(scene: Scene) -> list[Line]:
    if scene.attribution is None or scene.withheld:
        return []
    told = legend(scene.attribution.method)
    return [Line(text=told.reading, size=26, colour=WHITE), Line(text=told.not_told, size=26, colour=AMBER)]
