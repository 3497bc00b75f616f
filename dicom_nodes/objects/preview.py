"""Pictures of our own objects for people without a viewer."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture
from pydicom.pixels.utils import pixel_array

if TYPE_CHECKING:
    from pydicom import Dataset


def preview_png(dataset: Dataset) -> bytes | None:
    """Render the first page of a colour object as PNG; None for an object without pixels or colour."""
    if "PixelData" not in dataset or dataset.SamplesPerPixel == 1:
        return None
    pixels = np.asarray(pixel_array(dataset))
    frame = pixels if pixels.ndim == 3 else pixels[0]  # noqa: PLR2004 -- (rows, columns, 3)
    buffer = io.BytesIO()
    Picture.fromarray(frame.astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
