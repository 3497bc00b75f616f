"""Draws a result beside its film: original | overlay, every word in black strips outside the anatomy."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from dicom_nodes.objects import captions, colour, contours
from dicom_nodes.objects.attributes import aspect_ratio
from dicom_nodes.objects.derived import local_time
from dicom_nodes.objects.typesetting import Line, fit, font, text_width

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from dicom_nodes.objects.contours import Region
    from service.types import Attribution, Finding, Image, Result

    Box = tuple[int, int, int, int]

LARGEST_PANEL = 1024
SMALLEST_PANEL = 768
"""Sides of a panel in pixels; a small slice is enlarged so that the words beside it are not wider than it."""
LEVELS = (0.5, 0.8)
_GAP = 8
_SCALE_WIDTH = 110
_SHORTEST_SCALE = 200
"""Below this height four labels beside a colour scale would overlap; the caption names the levels anyway."""
_WHITE = (235, 235, 235)
_QUIET = (170, 170, 170)
_AMBER = (255, 191, 71)
_OUTLINE = {0.5: (255, 255, 255), 0.8: (255, 240, 120)}
_MUTED = (190, 190, 190)


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """A drawn result and where its parts lie."""

    picture: NDArray[np.uint8]
    """Shape (rows, columns, 3), RGB."""
    original: Box
    """Left, top, right, bottom of the untouched film; the right and bottom edges are exclusive."""
    overlay: Box
    texts: tuple[Box, ...]
    """Where words are; none of them touches a film."""

    def png(self) -> bytes:
        """Return the picture as PNG."""
        buffer = BytesIO()
        Picture.fromarray(self.picture).save(buffer, "PNG")
        return buffer.getvalue()


def render(source: Dataset, image: Image, result: Result) -> Rendering:
    """Draw the default explanation of a result.

    The film is never flipped or turned. Above its operating point a finding gets colour, level lines and a
    scale. Below it, it gets one dashed grey line: colour on a film that is called negative reads as a lesion,
    but whoever doubts the call can still see where the model looked.
    """
    attribution, finding = explained(result)
    width, height = panel_size(image.grey.shape, aspect_ratio(source))
    film = _resized(image.grey, width, height)
    magnitude = _magnitude(attribution, image.grey.shape)
    overlay = _overlay(film, magnitude, positive=finding.positive)
    with_scale = finding.positive and bool(magnitude.any()) and height >= _SHORTEST_SCALE
    bar = _SCALE_WIDTH if with_scale else 0
    total = 2 * width + _GAP + bar
    header = fit(_header(result, finding), total)
    titles = [fit([line], width) for line in _titles(source, attribution, finding)]
    footer = fit(_footer(source, result, attribution, finding), total)
    top = header.height + max(strip.height for strip in titles)
    canvas = Picture.new("RGB", (total + total % 2, _even(top + height + footer.height)))
    canvas.paste(Picture.fromarray(_bytes(np.repeat(film[..., None], 3, axis=-1) * 255.0)), (0, top))
    canvas.paste(overlay, (width + _GAP, top))
    pen = ImageDraw.Draw(canvas)
    boxes = header.draw(pen, 0, 0) + footer.draw(pen, 0, top + height)
    for strip, left in zip(titles, (0, width + _GAP), strict=True):
        boxes += strip.draw(pen, left, header.height)
    if with_scale:
        boxes += _draw_scale(canvas, 2 * width + _GAP, top, bar, height)
    return Rendering(
        picture=np.asarray(canvas, dtype=np.uint8),
        original=(0, top, width, top + height),
        overlay=(width + _GAP, top, 2 * width + _GAP, top + height),
        texts=tuple(boxes),
    )


def explained(result: Result) -> tuple[Attribution | None, Finding]:
    """Return the default explanation and the finding that it explains."""
    attribution = result.attributions[0] if result.attributions else None
    labels = {finding.label: finding for finding in result.findings}
    if attribution is not None and attribution.finding in labels:
        return attribution, labels[attribution.finding]
    return None, result.findings[0]


def panel_size(shape: tuple[int, ...], aspect: float) -> tuple[int, int]:
    """Return (width, height) of a panel with square pixels; even, as JPEG's chroma blocks like it."""
    height, width = shape[0] * aspect, float(shape[1])
    largest = max(height, width)
    scale = min(max(largest, SMALLEST_PANEL), LARGEST_PANEL) / largest
    return _even(round(width * scale)), _even(round(height * scale))


def _even(size: int) -> int:
    return max(2, size + size % 2)


def _resized(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    picture = Picture.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    resized = picture.resize((width, height), Picture.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, dtype=np.float32), 0.0, 1.0)


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _magnitude(attribution: Attribution | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if attribution is None:
        return np.zeros(shape, dtype=np.float32)
    return contours.magnitude(attribution.map)


def _overlay(film: NDArray[np.float32], magnitude: NDArray[np.float32], *, positive: bool) -> Picture.Image:
    height, width = film.shape
    lines = contours.outlined(magnitude)
    scale = (width / magnitude.shape[1], height / magnitude.shape[0])
    if not positive:
        picture = Picture.fromarray(_bytes(np.repeat(film[..., None], 3, axis=-1) * 255.0))
        return _outlined(picture, contours.regions(lines, LEVELS[0]), scale, _MUTED, dashed=True)
    picture = Picture.fromarray(_bytes(colour.blend(film, _resized(magnitude, width, height))))
    for level in LEVELS:
        picture = _outlined(picture, contours.regions(lines, level), scale, _OUTLINE[level], dashed=False)
    return picture


def _outlined(
    picture: Picture.Image,
    regions: list[Region],
    scale: tuple[float, float],
    tint: tuple[int, int, int],
    *,
    dashed: bool,
) -> Picture.Image:
    """Draw outlines with soft edges: a dark rim keeps a bright line visible on bone."""
    for ink, thickness in (((0, 0, 0), 9), (tint, 4)):
        mask = Picture.new("L", (picture.width * 2, picture.height * 2))
        pen = ImageDraw.Draw(mask)
        for region in regions:
            for piece in _pieces(region.points * np.array(scale), dashed=dashed):
                # A coordinate counts from the corner of the first pixel, the pen from its centre; here twice.
                pen.line([(2 * x - 0.5, 2 * y - 0.5) for x, y in piece], fill=255, width=thickness, joint="curve")
        soft = mask.resize(picture.size, Picture.Resampling.BOX)
        picture = Picture.composite(Picture.new("RGB", picture.size, ink), picture, soft)
    return picture


def _pieces(points: NDArray[np.float64], *, dashed: bool) -> list[list[tuple[float, float]]]:
    if not dashed:
        return [[(float(x), float(y)) for x, y in points]]
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    starts = np.arange(0.0, along[-1], 16.0)
    pieces = []
    for start in starts:
        places = np.linspace(start, min(start + 9.0, along[-1]), 4)
        xs, ys = np.interp(places, along, points[:, 0]), np.interp(places, along, points[:, 1])
        pieces.append([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)])
    return pieces


def _header(result: Result, finding: Finding) -> list[Line]:
    others = [other for other in result.findings if other is not finding]
    tint = _AMBER if finding.positive else _WHITE
    lines = [Line(text=captions.verdict(finding), size=40, colour=tint)]
    lines.append(Line(text=captions.probability(finding), size=28, colour=_WHITE))
    lines += [
        Line(text=f"{captions.verdict(other)}: {captions.percent(other.probability)}", size=24, colour=_WHITE)
        for other in others
    ]
    return lines


def _titles(source: Dataset, attribution: Attribution | None, finding: Finding) -> list[Line]:
    left = f"Original. {captions.orientation(source)}"
    if attribution is None:
        right = "No explanation was computed"
    elif finding.positive:
        right = f"{captions.method(attribution)}. Lines: 50 % and 80 % of the maximum"
    else:
        right = f"{captions.method(attribution)}. Below operating point: no colour; dashed line: 50 %"
    return [Line(text=text, size=22, colour=_QUIET) for text in (left, right)]


def _footer(source: Dataset, result: Result, attribution: Attribution | None, finding: Finding) -> list[Line]:
    reading = captions.HOW_TO_READ if finding.positive else captions.HOW_TO_READ_NEGATIVE
    when = captions.moment(local_time(source, result.created_at))
    notes = [
        captions.replaces(result),
        captions.no_positive(attribution),
        captions.ignored_negative(attribution),
    ]
    return [
        Line(text=f"{captions.NOT_FOR_DIAGNOSIS} {reading}", size=28, colour=_AMBER),
        Line(text=f"{captions.model(result)}   {when}", size=22, colour=_QUIET),
        Line(text=" ".join(filter(None, notes)), size=22, colour=_WHITE),
    ]


def _draw_scale(canvas: Picture.Image, left: int, top: int, width: int, height: int) -> list[Box]:
    """Draw the colour scale as it looks on mid-grey film, from 25 % to the maximum."""
    size = 20
    bar_left, bar_width = left + 12, 26
    bar_top, bar_height = top + 2 * size, height - 4 * size
    steps = np.linspace(1.0, colour.TRANSPARENT_BELOW, bar_height, dtype=np.float32)
    strip = colour.blend(np.full((bar_height, 1), 0.5, dtype=np.float32), steps[:, None])
    canvas.paste(Picture.fromarray(_bytes(np.repeat(strip, bar_width, axis=1))), (bar_left, bar_top))
    pen = ImageDraw.Draw(canvas)
    boxes = [_label(pen, "relative", left + (width - round(text_width("relative", size))) // 2, top, size)]
    for level in (1.0, *reversed(LEVELS), colour.TRANSPARENT_BELOW):
        y = bar_top + round((1.0 - level) / (1.0 - colour.TRANSPARENT_BELOW) * (bar_height - 1))
        pen.line([(bar_left + bar_width, y), (bar_left + bar_width + 5, y)], fill=_WHITE)
        boxes.append(_label(pen, f"{level:.0%}", bar_left + bar_width + 9, y - size // 2 - 2, size))
    return boxes


def _label(pen: ImageDraw.ImageDraw, text: str, x: int, y: int, size: int) -> Box:
    pen.text((x, y), text, fill=_WHITE, font=font(size))
    left, top, right, bottom = pen.textbbox((x, y), text, font=font(size))
    return int(left), int(top), int(right), int(bottom)
