"""Where the brain is in a head CT: what bone surrounds on nearly all sides. A light estimate to judge maps by."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

BONE_HU = 300.0
TISSUE_HU = (-20.0, 200.0)
"""Brain, blood and fluid; what is brighter within, a calcification, is filled afterwards."""
DIRECTIONS = 16
SURROUNDED = 15
"""Of `DIRECTIONS` must meet bone. A skull base has holes, so that closing the ring of bone fails there; muscles of the
neck and the contents of an orbit look into the open in more directions than one."""
BRIDGE_MM = 6.0
"""Half the width of what is cut: nerves and vessels through the skull base, slots between facial bones."""
LEAST_CM2 = 30.0
"""Of the largest slice; what is smaller is no braincase."""
SLOPES = ((0, 0), (0, 1), (0, -1), (1, 1), (-1, -1))
"""Columns that a ray moves in an odd and in an even step down: straight, and by half and by one to either side."""


def intracranial(values: NDArray[np.float32], pixel_mm: float) -> NDArray[np.bool_] | None:
    """Return the space inside the skull, bool (slices, rows, columns), or None where none is found.

    Every slice is looked at by itself, so that a tilted gantry and uneven gaps do no harm; of what is found the largest
    piece that holds together from slice to slice stays.

    Args:
        values: HU, float32 (slices, rows, columns), in geometric order.
        pixel_mm: side of a pixel.
    """
    tissue = (values > TISSUE_HU[0]) & (values < TISSUE_HU[1]) & (surrounded(values > BONE_HU) >= SURROUNDED)
    cut = disk(max(1, round(BRIDGE_MM / pixel_mm)))
    opened = [ndimage.binary_opening(ndimage.binary_closing(plane, disk(1)), cut) for plane in tissue]
    pieces, count = ndimage.label(np.stack(opened))
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    inside = np.stack([ndimage.binary_fill_holes(plane) for plane in pieces == int(sizes.argmax())])
    largest_cm2 = float(inside.sum(axis=(1, 2)).max()) * pixel_mm**2 / 100
    return inside if largest_cm2 >= LEAST_CM2 else None


def surrounded(bone: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return in how many of `DIRECTIONS` within its slice each place meets bone, (slices, rows, columns)."""
    met = np.zeros(bone.shape, dtype=np.int64)
    for upwards, across in product((False, True), repeat=2):
        turned = bone.transpose(0, 2, 1) if across else bone
        turned = turned[:, ::-1] if upwards else turned
        # The diagonals are the same either way.
        for slope in SLOPES[:3] if across else SLOPES:
            hit = _rays(turned, slope)
            hit = hit[:, ::-1] if upwards else hit
            met += hit.transpose(0, 2, 1) if across else hit
    return met


def _rays(bone: NDArray[np.bool_], slope: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which places meet bone on their way up the rows, (slices, rows, columns)."""
    hit = bone.copy()
    for row in range(1, bone.shape[1]):
        hit[:, row] |= _moved(hit[:, row - 1], slope[row % 2])
    return hit


def _moved(line: NDArray[np.bool_], columns: int) -> NDArray[np.bool_]:
    moved = np.zeros_like(line)
    if columns > 0:
        moved[:, 1:] = line[:, :-1]
    elif columns < 0:
        moved[:, :-1] = line[:, 1:]
    else:
        return line
    return moved


def disk(radius: int) -> NDArray[np.bool_]:
    """Return a round structuring element."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    round_: NDArray[np.bool_] = rows**2 + columns**2 <= radius**2
    return round_
