"""The large page of a result: original | explanation, every word in black strips outside the anatomy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from dicom_nodes.objects import captions, colour, subject
from dicom_nodes.objects.derived import local_time
from dicom_nodes.objects.orientation import NOT_STATED, edges
from dicom_nodes.objects.panels import (
    LARGEST_PANEL,
    LEVELS,
    Rendering,
    as_bytes,
    even,
    explained_panel,
    plain_panel,
    scene_size,
)
from dicom_nodes.objects.scene import Scene, default_scene
from dicom_nodes.objects.typesetting import Line, corner_rows, fit, font, text_width
from service.results import Verdict

if TYPE_CHECKING:
    from pydicom import Dataset

    from dicom_nodes.objects.panels import Box
    from service.images import Image
    from service.results import Attribution, Result

GAP = 8
WHITE = (235, 235, 235)
QUIET = (170, 170, 170)
AMBER = (255, 191, 71)
SIDES = 48
"""Rows above a film for the letters of its left and right edge."""
MOST_DOUBTS = 2
"""Reasons beside a film, the gravest first; where a map is not drawn there is room for more."""
MOST_METHODS = 6
"""Methods of which is told why they are not drawn."""
_SCALE_WIDTH = 110
_SHORTEST_SCALE = 200
"""Below this height four labels beside a colour scale would overlap; the caption names the levels anyway."""


def render(source: Dataset, image: Image, result: Result) -> Rendering:
    """Draw the default explanation of one image."""
    return render_scene(default_scene(subject.of_image(source, image, result)))


def render_scene(scene: Scene, largest: int = LARGEST_PANEL) -> Rendering:
    """Draw one scene: the film as sent, and beside it the film with the explanation.

    A map that failed its checks is not drawn: the place beside the film says why.

    Args:
        scene: what to draw.
        largest: side of a panel in pixels at most.
    """
    width, height = scene_size(scene, largest)
    with_scale = scene.finding.positive and bool(scene.magnitude.any()) and height >= _SHORTEST_SCALE
    bar = _SCALE_WIDTH if with_scale else 0
    total = 2 * width + GAP + bar
    corners = corner_rows(total)
    header = fit(_header(scene), total, above=corners)
    titles = [fit(lines, width) for lines in _titles(scene)]
    footer = fit(footer_lines(scene), total)
    top = header.height + max(strip.height for strip in titles) + SIDES
    words = fit(none_shown_lines(scene) or withheld_lines(scene), width) if scene.withheld else None
    tall = max(height, words.height) if words else height
    canvas = Picture.new("RGB", (total + total % 2, even(top + tall + footer.height + corners * 2 // 3)))
    canvas.paste(plain_panel(scene, (width, height)), (0, top))
    films: list[Box] = [(0, top, width, top + height)]
    pen = ImageDraw.Draw(canvas)
    boxes = header.draw(pen, 0, 0) + footer.draw(pen, 0, top + tall)
    right = width + GAP
    if words:
        boxes += words.draw(pen, right, top + min(height // 3, tall - words.height))
    else:
        canvas.paste(explained_panel(scene, (width, height)), (right, top))
        films.append((right, top, right + width, top + height))
    for strip, left in zip(titles, (0, right), strict=True):
        boxes += strip.draw(pen, left, header.height)
    for film in films:
        boxes += draw_sides(pen, scene, film)
    if with_scale:
        boxes += _draw_scale(canvas, 2 * width + GAP, top, bar, height)
    return Rendering(picture=np.asarray(canvas, dtype=np.uint8), films=tuple(films), texts=tuple(boxes))


def trust_colour(attribution: Attribution) -> tuple[int, int, int]:
    """Return the colour in which a verdict on an explanation is written: amber for anything but reliable."""
    reliable = attribution.assessment is not None and attribution.assessment.verdict is Verdict.RELIABLE
    return WHITE if reliable else AMBER


def withheld_lines(scene: Scene) -> list[Line]:
    """Say why a map is not drawn, where it would have been."""
    attribution = scene.attribution
    if attribution is None:
        return []
    return [
        Line(text=f"{captions.method(attribution)} is not shown.", size=36, colour=AMBER),
        Line(text=captions.doubts(attribution, 2 * MOST_DOUBTS), size=30, colour=WHITE),
        Line(text="The probability above does not depend on this map.", size=28, colour=QUIET),
    ]


def none_shown_lines(scene: Scene) -> list[Line]:
    """Say of every method why its map is not drawn, where none is; nothing for a single method, or where one is."""
    explained = subject.explanations_of(scene.result, scene.finding)
    told = captions.none_shown(explained)
    left = len(explained) - MOST_METHODS
    if len(explained) == 1 or not told:
        return []
    return [
        Line(text=told, size=36, colour=AMBER),
        *(
            Line(text=f"{each.title}: {captions.doubts(each, 1)}", size=28, colour=WHITE)
            for each in explained[:MOST_METHODS]
        ),
        Line(text=f"(And {left} more in the report.)" if left > 0 else "", size=28, colour=QUIET),
        Line(text="The probability above does not depend on these maps.", size=28, colour=QUIET),
    ]


def _header(scene: Scene) -> list[Line]:
    finding, result = scene.finding, scene.result
    others = [other for other in result.findings if other is not finding]
    tint = AMBER if finding.positive else WHITE
    lines = [Line(text=captions.verdict(finding), size=52, colour=tint)]
    lines.append(Line(text=captions.probability(finding), size=36, colour=WHITE))
    lines += [
        Line(text=f"{captions.verdict(other)}: {captions.percent(other.probability)}", size=30, colour=WHITE)
        for other in others
    ]
    return lines


def _titles(scene: Scene) -> tuple[list[Line], list[Line]]:
    place = f", {scene.place[0].lower()}{scene.place[1:]}" if scene.place else ""
    left = [Line(text=f"Original{place}", size=28, colour=QUIET)]
    if edges(scene.header) is None:
        left.append(Line(text=NOT_STATED, size=28, colour=AMBER))
    attribution = scene.attribution
    if attribution is None:
        return left, [Line(text="No explanation was computed", size=28, colour=QUIET)]
    if scene.withheld:
        several = f"Explanations of {scene.finding.label}. Not drawn" if none_shown_lines(scene) else drawn(scene)
        return left, [Line(text=several, size=28, colour=QUIET)]
    trust = f"Explanation: {captions.trust(attribution)}. {captions.doubts(attribution, MOST_DOUBTS)}"
    instead = captions.in_place_of(subject.stood_in_for(scene.result, scene.finding), 1)
    return left, [
        Line(text=drawn(scene), size=28, colour=QUIET),
        Line(text=instead, size=28, colour=AMBER),
        Line(text=trust, size=28, colour=trust_colour(attribution)),
    ]


def drawn(scene: Scene) -> str:
    """Say what is drawn of an explanation and how."""
    attribution = scene.attribution
    if attribution is None:
        return ""
    title = captions.method(attribution)
    smoothed = " Smoothed for display." if scene.smoothed else ""
    if scene.withheld:
        return f"{title}. Not drawn"
    if scene.finding.positive:
        return f"{title}. Lines: 50 % and 80 % of the maximum.{smoothed}"
    return f"{title}. Below operating point: no colour; dashed line: 50 %.{smoothed}"


def footer_lines(scene: Scene) -> list[Line]:
    """Return what stands under every page: not for diagnosis, how to read, model, software, time."""
    result, attribution = scene.result, None if scene.withheld else scene.attribution
    reading = captions.HOW_TO_READ if scene.finding.positive else captions.HOW_TO_READ_NEGATIVE
    when = captions.moment(local_time(scene.header, result.created_at))
    notes = [
        captions.replaces(result),
        captions.no_positive(attribution),
        captions.ignored_negative(attribution),
    ]
    return [
        Line(text=f"{captions.NOT_FOR_DIAGNOSIS} {'' if attribution is None else reading}", size=36, colour=AMBER),
        Line(text=captions.contradiction(result), size=30, colour=AMBER),
        Line(text=f"{captions.model(result)}   {when}", size=28, colour=QUIET),
        Line(text=" ".join(filter(None, notes)), size=28, colour=WHITE),
    ]


def draw_sides(pen: ImageDraw.ImageDraw, scene: Scene, film: Box) -> list[Box]:
    """Write which side is which above the corners of a film, where the source states it."""
    stated, size = edges(scene.header), SIDES - 8
    if stated is None:
        return []
    left, top, right, _ = film
    margin = min(16, (right - left) // 8)
    boxes = [_label(pen, stated.left, left + margin, top - SIDES, size)]
    if right - left > 4 * size:
        width = round(text_width(stated.right, size))
        boxes.append(_label(pen, stated.right, right - margin - width, top - SIDES, size))
    return boxes


def _draw_scale(canvas: Picture.Image, left: int, top: int, width: int, height: int) -> list[Box]:
    """Draw the colour scale as it looks on mid-grey film, from 25 % to the maximum."""
    size = 24
    bar_left, bar_width = left + 8, 24
    bar_top, bar_height = top + 2 * size, height - 4 * size
    steps = np.linspace(1.0, colour.TRANSPARENT_BELOW, bar_height, dtype=np.float32)
    strip = colour.blend(np.full((bar_height, 1), 0.5, dtype=np.float32), steps[:, None])
    canvas.paste(Picture.fromarray(as_bytes(np.repeat(strip, bar_width, axis=1))), (bar_left, bar_top))
    pen = ImageDraw.Draw(canvas)
    boxes = [_label(pen, "relative", left + (width - round(text_width("relative", size))) // 2, top, size)]
    for level in (1.0, *reversed(LEVELS), colour.TRANSPARENT_BELOW):
        y = bar_top + round((1.0 - level) / (1.0 - colour.TRANSPARENT_BELOW) * (bar_height - 1))
        pen.line([(bar_left + bar_width, y), (bar_left + bar_width + 5, y)], fill=WHITE)
        boxes.append(_label(pen, f"{level:.0%}", bar_left + bar_width + 8, y - size // 2 - 2, size))
    return boxes


def _label(pen: ImageDraw.ImageDraw, text: str, x: int, y: int, size: int) -> Box:
    pen.text((x, y), text, fill=WHITE, font=font(size))
    left, top, right, bottom = pen.textbbox((x, y), text, font=font(size))
    return int(left), int(top), int(right), int(bottom)
