"""Which side is which: the directions at the edges of an image, as the source states them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects.attributes import macro, numbers, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset

NOT_STATED = "The image does not state which side is which."
_DIRECTIONS = re.compile(r"[RLAPHF]{1,3}")
_OPPOSITE = str.maketrans("RLAPHF", "LRPAFH")
_LEAST = 0.2
"""Cosine below which a direction is left out of a letter group: 12 degrees off is still what it is called."""


@dataclass(frozen=True, kw_only=True)
class Edges:
    """What lies towards the left and the right edge of an image, in letters of PS3.3 C.7.6.1.1.1."""

    left: str
    right: str
    upper: str
    lower: str


def edges(header: Dataset) -> Edges | None:
    """Return the directions at the edges, or None where the source does not state them.

    From Patient Orientation, else from Image Orientation (Patient); a view position or a burned-in letter proves
    nothing, so nothing is inferred from them. Animals have other letters, which are left alone.
    """
    stated = [value.upper() for value in texts(header, "PatientOrientation")]
    if len(stated) != 2 or not all(map(_DIRECTIONS.fullmatch, stated)):  # noqa: PLR2004 - row and column
        stated = _from_cosines(numbers(macro(header, "PlaneOrientationSequence"), "ImageOrientationPatient"))
    if not stated:
        return None
    right, lower = stated
    return Edges(left=right.translate(_OPPOSITE), right=right, upper=lower.translate(_OPPOSITE), lower=lower)


def _from_cosines(cosines: Sequence[float]) -> list[str]:
    """Name the row's and the column's direction by their strongest components (PS3.3 C.7.6.2.1.1)."""
    if len(cosines) != 6:  # noqa: PLR2004 - two directions of x, y, z
        return []
    found = []
    for direction in (cosines[:3], cosines[3:]):
        order = np.argsort(-np.abs(direction), kind="stable")
        letters = (("LPH" if direction[axis] > 0 else "RAF")[axis] for axis in order if abs(direction[axis]) > _LEAST)
        found.append("".join(letters))
    return found if all(found) else []
