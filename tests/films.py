"""Chest films without a patient, for tests that need no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.images import Image, ImageHeader

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_image(grey: NDArray[np.floating]) -> Image:
    """Return grey values, (rows, columns), as an upright chest film."""
    header = ImageHeader(
        sop_instance_uid="1",
        modality="DX",
        body_part="CHEST",
        view_position="PA",
        patient_orientation=("L", "F"),
        rows=grey.shape[0],
        columns=grey.shape[1],
    )
    values = grey.astype(np.float32)
    return Image(header=header, grey=values, values=values, pixel_spacing_mm=None)
