"""Opacities planted into films of clear lungs, so that where the finding lies is known to the pixel.

Consolidation hides the vessels' contrast but not the ribs in front of it: an opacity raises the low
frequencies of the film towards the brightness of the mediastinum and leaves its fine structure. Its outline
and density are fractal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from workers.training.augment import widen

OCTAVES = (4, 8, 16, 32, 64)
HALF = 0.5
"""A mask between 0 and 1 counts as inside from here on."""
VISIBLE = 0.15
"""Share of full opacification from which a pixel counts as planted."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """`films` and `masks`, both float32 (batch, 1, rows, columns); masks are 1 on what was planted."""

    films: torch.Tensor
    masks: torch.Tensor


def plant(films: torch.Tensor, lungs: torch.Tensor, generator: torch.Generator) -> Planted:
    """Plant one to three opacities into the lungs of each film.

    Args:
        films: float32 (batch, 1, rows, columns) in [0, 1], MONOCHROME2.
        lungs: likewise, 1 inside the lung fields.
        generator: the only source of chance.
    """
    shape = torch.zeros_like(films)
    count = films.shape[0]
    if count == 0:
        return Planted(films=films, masks=shape)
    for index in range(3):
        present = (_uniform(count, 0, 1, generator) < (1.0, 0.35, 0.15)[index]).float()
        shape = torch.maximum(shape, present * _blob(lungs, generator))
    soft_lungs = widen(lungs, 0)
    density = shape * soft_lungs * (0.75 + 0.25 * _fractal(films, generator)).clamp(0.2, 1.0)
    alpha = density * _uniform(count, 0.35, 0.95, generator)
    return Planted(films=_opacify(films, lungs, alpha), masks=(alpha > VISIBLE).float())


def plant_outside(films: torch.Tensor, lungs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Plant the same kind of brightness where no lung is: it must not count as the finding."""
    elsewhere = 1.0 - widen(lungs, 8)
    alpha = _blob(elsewhere, generator) * elsewhere
    return _opacify(films, lungs, alpha * _uniform(films.shape[0], 0.3, 0.9, generator))


def veil(films: torch.Tensor, lungs: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Make the lungs as bright as the mediastinum wherever `where` is 1."""
    return _opacify(films, lungs, widen(lungs, 4) * where)


def _opacify(films: torch.Tensor, lungs: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    coarse = F.avg_pool2d(F.avg_pool2d(films, 4), 5, stride=1, padding=2, count_include_pad=False)
    low = F.interpolate(coarse, size=films.shape[-2:], mode="bilinear", align_corners=False)
    # The mediastinum lies between the lungs: the brighter part of what is not lung.
    outside = torch.where(lungs > HALF, torch.zeros_like(films), films).flatten(2)
    bright = outside[..., ::37].quantile(0.85, dim=2, keepdim=True)[..., None]
    return (films + alpha * (bright - low).clamp_min(0.05)).clamp(0.0, 1.0)


def _blob(where: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a soft irregular shape in [0, 1] around a random place of `where`."""
    count, _, rows, columns = where.shape
    chance = torch.rand(where.shape, generator=generator) * (where > HALF)
    place = chance.flatten(1).argmax(dim=1)
    centre_row, centre_column = (place // columns).view(-1, 1, 1, 1), (place % columns).view(-1, 1, 1, 1)
    row = torch.arange(rows).view(1, 1, -1, 1) - centre_row
    column = torch.arange(columns).view(1, 1, 1, -1) - centre_column
    size = rows * torch.exp(_uniform(count, -3.4, -1.7, generator))
    stretch = torch.exp(_uniform(count, -0.4, 0.4, generator))
    distance = torch.sqrt((row / (size * stretch)) ** 2 + (column / (size / stretch)) ** 2)
    ragged = distance + 0.45 * _fractal(where, generator)
    return torch.sigmoid((1.0 - ragged) * _uniform(count, 3.0, 9.0, generator))


def _fractal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return noise of about unit deviation whose amplitude falls with the frequency."""
    count, _, rows, columns = like.shape
    total = torch.zeros_like(like)
    for size in OCTAVES:
        noise = torch.randn((count, 1, size, size), generator=generator) * (OCTAVES[0] / size) ** 0.7
        total += F.interpolate(noise, size=(rows, columns), mode="bilinear", align_corners=False)
    return total


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)
