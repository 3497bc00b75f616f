"""Grey stored as colour is grey; colour is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from dicom_nodes.objects.read import read_header
from dicom_nodes.objects.true_colour import has_colour

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import FileDataset

    Make = Callable[..., FileDataset]
    Save = Callable[[FileDataset], Path]


@pytest.mark.parametrize("coloured", [False, True])
def test_channels_that_differ_are_colour(source: Make, saved: Save, coloured: bool) -> None:
    pixels = np.repeat(np.arange(48 * 40, dtype=np.uint16).reshape(48, 40, 1) % 251, 3, axis=2).astype(np.uint8)
    if coloured:
        pixels[:10, :, 0] = 250
    path = saved(source(pixels))
    assert has_colour(path, *read_header(path)) is coloured


def test_a_grey_image_has_no_colour(source: Make, saved: Save) -> None:
    path = saved(source())
    assert not has_colour(path, *read_header(path))
