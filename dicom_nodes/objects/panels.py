"""Draws films: grey alone, under heat, or with level lines. No words; never flipped, never turned."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from dicom_nodes.objects import colour, contours
from dicom_nodes.objects.attributes import aspect_ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dicom_nodes.objects.contours import Region
    from dicom_nodes.objects.scene import Scene

    Box = tuple[int, int, int, int]

LARGEST_PANEL = 1024
SMALLEST_PANEL = 768
"""Sides of a panel in pixels; a small slice is enlarged so that the words beside it are not wider than it."""
LEVELS = (0.5, 0.8)
_OUTLINE = {0.5: (255, 255, 255), 0.8: (255, 240, 120)}
_MUTED = (190, 190, 190)


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """A drawn page and where its parts lie."""

    picture: NDArray[np.uint8]
    """Shape (rows, columns, 3), RGB."""
    films: tuple[Box, ...]
    """Left, top, right, bottom of every film on the page; the right and bottom edges are exclusive."""
    texts: tuple[Box, ...]
    """Where words are; none of them touches a film."""

    @property
    def original(self) -> Box:
        """The first film of a page: on a large one the untouched film."""
        return self.films[0]

    @property
    def overlay(self) -> Box:
        """The last film of a page: on a large one the film with the explanation."""
        return self.films[-1]

    def png(self) -> bytes:
        """Return the picture as PNG."""
        buffer = BytesIO()
        Picture.fromarray(self.picture).save(buffer, "PNG")
        return buffer.getvalue()


def panel_size(shape: tuple[int, ...], aspect: float, largest: int = LARGEST_PANEL) -> tuple[int, int]:
    """Return (width, height) of a panel with square pixels; even, as JPEG's chroma blocks like it."""
    height, width = shape[0] * aspect, float(shape[1])
    side = max(height, width)
    scale = min(max(side, min(SMALLEST_PANEL, largest)), largest) / side
    return even(round(width * scale)), even(round(height * scale))


def scene_size(scene: Scene, largest: int = LARGEST_PANEL) -> tuple[int, int]:
    """Return (width, height) of a scene's panel."""
    return panel_size(scene.image.grey.shape, aspect_ratio(scene.header), largest)


def even(size: int) -> int:
    """Return the next even number from 2 on."""
    return max(2, size + size % 2)


def plain_panel(scene: Scene, size: tuple[int, int]) -> Picture.Image:
    """Draw the film as it is, in (width, height)."""
    return _grey(_resized(scene.image.grey, *size))


def explained_panel(scene: Scene, size: tuple[int, int]) -> Picture.Image:
    """Draw the film with its explanation.

    Above its operating point a finding gets colour and level lines. Below it, it gets one dashed grey line: colour
    on a film that is called negative reads as a lesion, but whoever doubts the call can still see where the model
    looked.
    """
    width, height = size
    film = _resized(scene.image.grey, width, height)
    lines = scene.magnitude
    scale = (width / lines.shape[1], height / lines.shape[0])
    if not scene.finding.positive:
        return _outlined(_grey(film), contours.regions(lines, LEVELS[0]), scale, _MUTED, dashed=True)
    picture = Picture.fromarray(as_bytes(colour.blend(film, _resized(scene.magnitude, width, height))))
    for level in LEVELS:
        picture = _outlined(picture, contours.regions(lines, level), scale, _OUTLINE[level], dashed=False)
    return picture


def as_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round to 8 bits."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grey(film: NDArray[np.float32]) -> Picture.Image:
    return Picture.fromarray(as_bytes(np.repeat(film[..., None], 3, axis=-1) * 255.0))


def _resized(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    picture = Picture.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    resized = picture.resize((width, height), Picture.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, dtype=np.float32), 0.0, 1.0)


def _outlined(
    picture: Picture.Image,
    regions: list[Region],
    scale: tuple[float, float],
    tint: tuple[int, int, int],
    *,
    dashed: bool,
) -> Picture.Image:
    """Draw outlines with soft edges: a dark rim keeps a bright line visible on bone."""
    if not regions:
        return picture
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
