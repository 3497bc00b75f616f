"""What a map should and should not lie on: body, lungs, border, burned-in text and side markers.

All classical but the lungs (see `lung_field`). They are estimates to judge an explanation by; none of them is anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from workers.assessors.lung_field import lung_field
from workers.preprocess import crop_mask, resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.model_card import Input

FINEST = 768
"""Rows or columns on which letters are looked for; more than that shows no more letters."""
BORDER = 0.05
"""Share of each side that counts as border."""
AIR = 0.55
"""A pixel this far below the film's median, and joined to its edge, is air or collimation."""
RAISED = (0.16, 0.28)
"""How much brighter than its surroundings a letter is, in grey values [0, 1]: anywhere, and beside ribs."""
LETTER = (0.008, 0.14)
"""Height and width of a letter or of a line of text run together, as a share of the film's side."""
STROKE = 0.02
"""Widest stroke of a letter, as a share of the film's side."""
SHARP = (0.08, 0.16)
"""Mean step of grey along a letter's outline, likewise; bones and tubes are softer."""
RIBS = 0.04
"""How far beyond the lungs ribs lie, as a share of the film's side."""
HALO = 0.015
"""Of the film's side, around every letter: a network sees the letter's surroundings with it."""
REACH = 0.06
"""Letters nearer to each other than this share of the film's side belong to one text."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Masks, bool, over the whole extent of the input, all of one shape: (rows, columns) or (slices, rows, columns)."""

    body: NDArray[np.bool_]
    border: NDArray[np.bool_]
    lungs: NDArray[np.bool_] | None = None
    """Of a chest radiograph; None when no lungs were found."""
    text: NDArray[np.bool_] | None = None
    """Of a radiograph: burned-in letters, side markers and other small, sharp, very bright things such as clips."""
    unscanned: NDArray[np.bool_] | None = None
    """Of a series: where the scanner measured nothing."""
    intracranial: NDArray[np.bool_] | None = None
    """Of a CT series: inside the skull; None when no braincase was found."""


def find_regions(grey: NDArray[np.float32], rows: int, columns: int, *, expected: Input | None = None) -> Regions:
    """Estimate the regions of a frontal chest film.

    Args:
        grey: float32 of any shape in [0, 1], MONOCHROME2.
        rows: of the masks that come back.
        columns: likewise.
        expected: of the model's card, where the masks are to show what its network sees of the film; None: all of it.

    Raises:
        ModelError: the shipped lung-field network is missing or altered.
    """
    lungs = lung_field(grey)
    body = body_mask(_shrink(grey, 224))
    if lungs is not None:
        body = body | (_resize(lungs, *body.shape) & ndimage.binary_fill_holes(body))
    seen = partial(crop_mask, shape=grey.shape, expected=expected)
    return Regions(
        body=_resize(seen(body), rows, columns),
        lungs=None if lungs is None else _resize(seen(lungs), rows, columns),
        border=border_mask(rows, columns),
        text=_spread(seen(_letters(grey, lungs)), rows, columns),
    )


def _letters(grey: NDArray[np.float32], lungs: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    film = _shrink(grey, FINEST)
    if lungs is None:
        return text_mask(film)
    near = ndimage.binary_dilation(lungs, iterations=round(RIBS * min(lungs.shape)))
    return text_mask(film, _resize(near, *film.shape))


def border_mask(*axes: int) -> NDArray[np.bool_]:
    """Return the frame of `BORDER` of each side of the plane, in every slice of a volume."""
    rows, columns = axes[-2:]
    mask = np.ones(axes, dtype=bool)
    down, across = max(1, round(rows * BORDER)), max(1, round(columns * BORDER))
    mask[..., down : rows - down, across : columns - across] = False
    return mask


def body_mask(grey: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the patient: all but the air and collimation that are joined to the film's edge."""
    smooth = ndimage.gaussian_filter(grey, min(grey.shape) / 150)
    dark = smooth < np.median(smooth) * AIR
    labels, _ = ndimage.label(dark)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    body = ~np.isin(labels, edge[edge > 0])
    body = ndimage.binary_opening(body, iterations=max(1, min(grey.shape) // 60))
    pieces, count = ndimage.label(body)
    if count == 0:
        return np.ones(grey.shape, dtype=bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(pieces == int(sizes.argmax()))
    return filled


def text_mask(grey: NDArray[np.float32], near_lungs: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return letters and markers: small, narrow-stroked, far brighter than around them, with sharp outlines.

    `near_lungs`, of the same shape, is where ribs could pass for letters: there a letter must stand out more.
    """
    side = min(grey.shape)
    stroke = max(3, 2 * round(side * STROKE / 2) + 1)
    hat = grey - ndimage.grey_opening(grey, size=(stroke, stroke))
    gradient = ndimage.gaussian_gradient_magnitude(grey, 0.7)
    labels, count = ndimage.label(hat > RAISED[0], structure=np.ones((3, 3)))
    mask = np.zeros(grey.shape, dtype=bool)
    if count == 0:
        return mask
    numbers = np.arange(1, count + 1)
    outline = (labels > 0) & ~ndimage.binary_erosion(labels > 0)
    sharpness = ndimage.mean(gradient, np.where(outline, labels, 0), numbers)
    height = ndimage.maximum(hat, labels, numbers)
    ribs = np.zeros(count) if near_lungs is None else ndimage.mean(near_lungs, labels, numbers)
    for index, place in enumerate(ndimage.find_objects(labels)):
        extent = max(part.stop - part.start for part in place)
        strict = int(ribs[index] > 0)
        fits = max(2.0, LETTER[0] * side) <= extent <= LETTER[1] * side
        if fits and sharpness[index] >= SHARP[strict] and height[index] >= RAISED[strict]:
            mask[place] |= labels[place] == index + 1
    return mask


def _spread(mask: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.bool_]:
    """Join the letters of one text, add a halo, and carry the mask to another grid without losing a letter."""
    if not mask.any():
        return np.zeros((rows, columns), dtype=bool)
    kept = F.adaptive_max_pool2d(torch.from_numpy(mask.astype(np.float32))[None], (rows, columns))[0].numpy() > 0
    side = min(rows, columns)
    joined = ndimage.binary_closing(np.pad(kept, side), iterations=max(1, round(REACH * side / 2)))
    halo = max(1, round(HALO * side))
    grown: NDArray[np.bool_] = ndimage.binary_dilation(joined[side:-side, side:-side] | kept, iterations=halo)
    return grown


def _shrink(grey: NDArray[np.float32], finest: int) -> NDArray[np.float32]:
    scale = finest / max(grey.shape)
    if scale >= 1:
        return grey
    rows, columns = (max(1, round(size * scale)) for size in grey.shape)
    film = torch.tensor(grey, dtype=torch.float32)[None, None]
    small: NDArray[np.float32] = resize(film, rows, columns)[0, 0].numpy()
    return small


def _resize(mask: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.bool_]:
    film = torch.from_numpy(mask.astype(np.float32))[None, None]
    shares = F.interpolate(film, size=(rows, columns), mode="bilinear", antialias=True, align_corners=False)
    result: NDArray[np.bool_] = shares[0, 0].numpy() >= 0.5  # noqa: PLR2004 - half
    return result
