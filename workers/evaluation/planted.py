"""Writes images whose lesions' place is known to the pixel: phantoms, and clear films with opacities planted into them.

`pellucid evaluate` reads what this writes, so that an explanation can be compared with the truth.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Pillow

from service.errors import NotEligibleError, SettingsError
from workers.evaluation.cases import DICOM, PICTURES, read_any
from workers.phantom.film import make_phantom
from workers.preprocess import resize
from workers.training.corpus import as_films, as_masks
from workers.training.lung_network import SIDE
from workers.training.lungs import lungs_by_threshold
from workers.training.plant import plant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FILM_SIDE = 448
PHANTOM_SIZE = (512, 480)
WINDOW = (0.5, 99.8)
"""Percentiles of a phantom's values that are shown as black and white."""
FIRST_PHANTOM = 5_000_000_000
"""Seed of the first phantom: far from those that models were trained on."""


@dataclass(frozen=True, kw_only=True)
class KnownImage:
    """`pixels` uint8 and `mask` bool, both (rows, columns); the mask is empty for an image without lesion."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def write_known(images: Iterator[KnownImage], out: Path, advance: Callable[[int], None]) -> Path:
    """Write images, masks and `cases.csv` into `out`; return the path of the CSV."""
    out.mkdir(parents=True, exist_ok=True)
    table = out / "cases.csv"
    with table.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(("path", "label", "mask"))
        for number, image in enumerate(images):
            name, mask = f"{number:05d}.png", ""
            Pillow.fromarray(image.pixels).save(out / name)
            if image.mask.any():
                mask = f"{number:05d}-mask.png"
                Pillow.fromarray(image.mask.astype(np.uint8) * 255).save(out / mask)
            writer.writerow((name, "1" if mask else "0", mask))
            advance(1)
    return table


def known_phantoms(count: int, seed: int) -> Iterator[KnownImage]:
    """Yield phantoms: `count` with one to three opacities, and as many without."""
    for number in range(2 * count):
        opacities = (number % 2) * (1 + number // 2 % 3)
        phantom = make_phantom(FIRST_PHANTOM + seed * 1_000_000 + number, PHANTOM_SIZE, opacities=opacities)
        low, high = np.percentile(phantom.pixels, WINDOW)
        grey = np.clip((phantom.pixels - low) / max(float(high - low), 1.0), 0, 1)
        yield KnownImage(pixels=np.round(grey * 255).astype(np.uint8), mask=phantom.opacities)


def planted_films(folder: Path, count: int, seed: int) -> Iterator[KnownImage]:
    """Yield clear films of `folder` with opacities planted, `count` in all, and as many as they were.

    Films are taken in turn and again, each time with other opacities; one on which no lungs are found by rule is left
    out, for there it is not known where to plant.

    Raises:
        SettingsError: no film of the folder can be used.
    """
    generator = torch.Generator().manual_seed(seed)
    films = [film for path in sorted(folder.rglob("*")) if (film := _film(path)) is not None]
    usable = [(film, lungs) for film in films if (lungs := _lungs(film)) is not None]
    if not usable:
        raise SettingsError(
            f"{folder}: no film on which the lungs can be found; a folder of clear frontal films is needed"
        )
    number = 0
    while number < count:
        film, lungs = usable[number % len(usable)]
        pixels = as_films(film[None])
        planted = plant(pixels, as_masks(lungs[None].astype(np.uint8), pixels), generator)
        mask = planted.masks[0, 0].numpy() > 0
        if not mask.any():
            continue
        yield KnownImage(pixels=film, mask=np.zeros_like(mask))
        yield KnownImage(pixels=(planted.films[0, 0].numpy() * 255).round().astype(np.uint8), mask=mask)
        number += 1


def _film(path: Path) -> NDArray[np.uint8] | None:
    """Read a file as a square film, as the models that learn from squashed films expect."""
    if not path.is_file() or path.suffix.lower() not in PICTURES | DICOM:
        return None
    try:
        grey = read_any(path).grey
    except NotEligibleError:
        return None
    square = resize(torch.from_numpy(np.ascontiguousarray(grey))[None, None], FILM_SIDE, FILM_SIDE)
    return (square[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _lungs(film: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    small = resize(as_films(film[None]), SIDE, SIDE)
    return lungs_by_threshold((small[0, 0] * 255).round().to(torch.uint8).numpy())
