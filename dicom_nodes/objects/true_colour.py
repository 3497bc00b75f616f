"""Tells a colour image from a grey one that was stored as colour, as many screenshots and film scanners do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects.decode import stored_values
from dicom_nodes.objects.grey import brightest
from dicom_nodes.objects.part10 import tolerant

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from service.images import ImageHeader

COLOURED = 0.04
"""Of the largest value: JPEG's chrominance moves grey by less."""
SHARE = 0.001
"""Of the pixels; a few of an annotation's edge do not make a picture a coloured one."""


def has_colour(path: Path, dataset: Dataset, header: ImageHeader) -> bool:
    """Tell whether an image's channels differ; grey photometric interpretations are never decoded for it.

    Raises:
        UndecodableError: the pixels cannot be decoded.
    """
    if header.samples_per_pixel == 1 and header.photometric_interpretation != "PALETTE COLOR":
        return False
    with tolerant():
        pixels = stored_values(path, dataset)
    if pixels.ndim != 3:  # noqa: PLR2004 - rows, columns, samples
        return False
    spread = np.ptp(pixels[..., :3].astype(np.int32), axis=2)
    return bool(np.mean(spread > COLOURED * brightest(dataset, pixels)) > SHARE)
