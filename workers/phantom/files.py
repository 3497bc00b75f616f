"""Sample studies made of phantoms, for demonstrations and tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from dicom_nodes.objects.phantom_file import PhantomStudy, write_phantom
from workers.phantom.film import SIZE, make_phantom

if TYPE_CHECKING:
    from pathlib import Path

FIRST_EXPOSURE = datetime(2026, 1, 5, 9, 0)  # noqa: DTZ001 - DICOM's dates are local by definition
BETWEEN_EXPOSURES = timedelta(minutes=7)


def write_samples(folder: Path, count: int, seed: int, size: tuple[int, int] = SIZE) -> list[Path]:
    """Write `count` single-image studies into `folder` and return their files, in order.

    Clear lungs and one, two or three opacities take turns, as do MONOCHROME2 and MONOCHROME1, DX and CR. The same
    count, seed and size give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder, index, seed, size) for index in range(count)]


def sample_opacities(index: int) -> int:
    """Return how many opacities the sample with this index, from 0, has: none in every second one."""
    return 0 if index % 2 else 1 + (index // 2) % 3


def _write(folder: Path, index: int, seed: int, size: tuple[int, int]) -> Path:
    phantom = make_phantom(seed * 10_000 + index, size, opacities=sample_opacities(index))
    modality: Literal["DX", "CR"] = "CR" if index % 3 == 2 else "DX"  # noqa: PLR2004 - every third
    study = PhantomStudy(
        pixels=phantom.pixels,
        name=f"{seed}-{index}-{size[0]}x{size[1]}",
        number=index + 1,
        taken_at=FIRST_EXPOSURE + index * BETWEEN_EXPOSURES,
        modality=modality,
        photometric="MONOCHROME1" if index % 4 == 3 else "MONOCHROME2",  # noqa: PLR2004 - every fourth
    )
    path = folder / f"phantom-{index + 1:03d}.dcm"
    write_phantom(path, study)
    return path
