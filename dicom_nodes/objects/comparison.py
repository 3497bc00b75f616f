"""The page that lays methods side by side, each with its verdict and its legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from dicom_nodes.objects import captions
from dicom_nodes.objects.legends import legend
from dicom_nodes.objects.overlay import AMBER, GAP, QUIET, WHITE, footer_lines, trust_colour, withheld_lines
from dicom_nodes.objects.panels import Rendering, even, explained_panel, scene_size
from dicom_nodes.objects.typesetting import Line, Strip, corner_rows, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_nodes.objects.panels import Box
    from dicom_nodes.objects.scene import Scene

ACROSS = 3
"""Methods on one page: with more, neither film nor legend can be read."""
_NARROWEST = 480
_LOWEST_FILM = 320
_SCALES = "Every map has its own relative scale; maps of different methods differ in meaning."


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One method's place on the page."""

    scene: Scene
    title: Strip
    legend: Strip


def render_comparison(scenes: Sequence[Scene], width: int, height: int) -> list[Rendering]:
    """Draw scenes of one finding, at most three a page.

    Args:
        scenes: one per method, of the same film and finding.
        width: of the page in pixels.
        height: of the page at least; it grows when the words leave too little room for films.
    """
    across = ACROSS if (width - 2 * GAP) // ACROSS >= _NARROWEST else ACROSS - 1
    # Four methods are two pages of two, not three and a straggler.
    across = -(-len(scenes) // -(-len(scenes) // across))
    groups = [scenes[start : start + across] for start in range(0, len(scenes), across)]
    return [_page(group, across, width, height) for group in groups]


def _page(scenes: Sequence[Scene], across: int, width: int, height: int) -> Rendering:
    column = (width - (across - 1) * GAP) // across
    corners = corner_rows(width)
    header = fit(_header(scenes[0]), width, above=corners)
    footer = fit(footer_lines(_neutral(scenes)), width)
    cells = [
        _Cell(scene=scene, title=fit(_title(scene), column), legend=fit(_legend(scene), column)) for scene in scenes
    ]
    title_height = max(cell.title.height for cell in cells)
    words = header.height + title_height + max(cell.legend.height for cell in cells) + footer.height + corners * 2 // 3
    full_width, full_height = scene_size(scenes[0])
    room = max(height - words, _LOWEST_FILM)
    scale = min(column / full_width, room / full_height)
    film = (max(2, int(full_width * scale)), max(2, int(full_height * scale)))
    canvas = Picture.new("RGB", (even(width), even(max(height, words + film[1]))))
    pen = ImageDraw.Draw(canvas)
    boxes = header.draw(pen, 0, 0)
    films: list[Box] = []
    top = header.height + title_height
    for place, cell in enumerate(cells):
        left = place * (column + GAP)
        boxes += cell.title.draw(pen, left, header.height)
        if cell.scene.withheld:
            boxes += fit(withheld_lines(cell.scene), column).draw(pen, left, top + film[1] // 3)
        else:
            canvas.paste(explained_panel(cell.scene, film), (left, top))
            films.append((left, top, left + film[0], top + film[1]))
        boxes += cell.legend.draw(pen, left, top + film[1])
    boxes += footer.draw(pen, 0, canvas.height - footer.height - corners * 2 // 3)
    return Rendering(picture=np.asarray(canvas, dtype=np.uint8), films=tuple(films), texts=tuple(boxes))


def _neutral(scenes: Sequence[Scene]) -> Scene:
    """Return the scene whose footer fits all: one that is drawn, where there is one."""
    return next((scene for scene in scenes if not scene.withheld), scenes[0])


def _header(scene: Scene) -> list[Line]:
    place = f"   {scene.place}" if scene.place else ""
    tint = AMBER if scene.finding.positive else WHITE
    lines = [
        Line(text=f"Methods compared: {captions.verdict(scene.finding)}", size=32, colour=tint),
        Line(text=f"{captions.probability(scene.finding)}{place}", size=24, colour=WHITE),
        Line(text=_SCALES, size=22, colour=QUIET),
    ]
    lines += [Line(text=f"Not computed: {text}", size=22, colour=QUIET) for text in scene.result.unavailable]
    return lines


def _title(scene: Scene) -> list[Line]:
    attribution = scene.attribution
    if attribution is None:
        return []
    lines = [Line(text=attribution.title, size=28, colour=WHITE)]
    lines.append(Line(text=f"Explanation: {captions.trust(attribution)}", size=24, colour=trust_colour(attribution)))
    if not scene.withheld:
        smoothed = "Smoothed for display." if scene.smoothed else ""
        lines.append(Line(text=f"{captions.doubts(attribution)} {smoothed}".strip(), size=20, colour=QUIET))
    return lines


def _legend(scene: Scene) -> list[Line]:
    if scene.attribution is None:
        return []
    told = legend(scene.attribution.method)
    return [Line(text=told.reading, size=20, colour=WHITE), Line(text=told.not_told, size=20, colour=AMBER)]
