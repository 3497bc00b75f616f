from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dicom_nodes.objects.read import read_header, read_image
from dicom_nodes.objects.refusal_report import build as build_refusal
from dicom_nodes.objects.structured_report import build
from dicom_nodes.objects.write import to_bytes
from service.errors import PellucidError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Refusal, Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]


@pytest.mark.parametrize("seed", range(6))
def test_mutated_files_are_read_or_answered_with_an_error_of_ours(
    source: Make, saved: Save, result: Callable[..., Result], refusal: Refusal, seed: int
) -> None:
    path = saved(source(PixelPaddingValue=0, WindowCenter="900", WindowWidth="800"))
    original = path.read_bytes()
    chance = random.Random(seed)  # noqa: S311 - no secret is made
    outcomes = {"read": 0, "refused": 0}
    for _ in range(100):
        path.write_bytes(_mutated(original, chance))
        try:
            to_bytes(build_refusal(read_header(path)[0], refusal))
            read = read_image(path)
            to_bytes(build(read.header, read.image, result(read.image)))
        except PellucidError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert np.isfinite(read.image.grey).all()
            assert 0 <= read.image.grey.min() <= read.image.grey.max() <= 1
    assert min(outcomes.values()) > 10


def _mutated(data: bytes, chance: random.Random) -> bytes:
    """Flip, fill or cut some bytes behind the preamble."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(132, 1200)
        changed[at] = chance.choice([0, 255, changed[at] ^ (1 << chance.randrange(8))])
    return bytes(changed[: chance.randrange(200, len(changed))] if chance.random() < 0.1 else changed)
