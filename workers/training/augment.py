"""Changes that a film may undergo without a change of its finding; left stays left.

Besides pose and exposure they take away what a network could lean on instead of the lungs: background,
borders, collimation, side markers and burned-in text come and go at random, independent of the class; and so
do breast shadows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch.nn import functional as F

from workers.training.breasts import lay_breasts

TEXTS = (
    "R",
    "L",
    "A-P",
    "AP",
    "PA",
    "R PORT",
    "SUPINE",
    "ERECT",
    "L 12:40",
    "A P",
    "+",
    "1",
    "D",
    "RT",
    "LT",
)
BLACKENED = 0.25
"""Share of the films of which a corner is blackened."""
LETTERED = 0.35
"""Share of the films that get a text; the same share gets a second one."""
BREASTS = 0.3
"""Share of the films that get breast shadows."""
BODY_MARGIN = 15
"""Pixels around the lungs that stay as they are when the background is changed."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Films with what is known of them, all float32 (batch, 1, rows, columns).

    `lungs` is 1 inside the lung fields; `masks` is 1 on planted opacities.
    """

    films: torch.Tensor
    lungs: torch.Tensor
    masks: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on `device`."""
        return Batch(films=self.films.to(device), lungs=self.lungs.to(device), masks=self.masks.to(device))


def augment(batch: Batch, generator: torch.Generator, strength: float = 1.0) -> Batch:
    """Return the batch under a random pose, exposure, background and lettering.

    `strength` in [0, 1] scales how far and how often everything changes.
    """
    shadowed = lay_breasts(batch.films, batch.lungs, generator)
    chosen = happens(batch.films.shape[0], BREASTS * strength, generator)
    films = _background(torch.where(chosen, shadowed, batch.films), batch.lungs, generator, strength)
    moved = _move(Batch(films=films, lungs=batch.lungs, masks=batch.masks), generator, strength)
    films = _expose(moved.films, generator, strength)
    films = _degrade(films, generator, strength)
    films = _collimate(films, generator, strength)
    films = _letter(films, generator, strength)
    return Batch(films=films, lungs=moved.lungs, masks=moved.masks)


def _move(batch: Batch, generator: torch.Generator, strength: float) -> Batch:
    count = batch.films.shape[0]
    angle = math.radians(12) * strength * _spread(count, generator)
    zoom = torch.exp(strength * _between(count, -0.32, 0.16, generator))
    aspect = torch.exp(0.12 * strength * _spread(count, generator))
    shear = 0.08 * strength * _spread(count, generator)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = zoom * aspect, zoom / aspect
    shift = 0.12 * strength * torch.stack([_spread(count, generator), _spread(count, generator)], dim=1)
    matrix = torch.stack([torch.stack([x * cos, -y * sin + shear], 1), torch.stack([x * sin, y * cos], 1)], dim=1)
    theta = torch.cat([matrix, shift[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(batch.films.shape), align_corners=False)
    films = _sample(batch.films, grid, generator)
    known = torch.cat([batch.lungs, batch.masks], dim=1)
    lungs, masks = torch.split(F.grid_sample(known, grid, align_corners=False), 1, dim=1)
    return Batch(films=films, lungs=lungs, masks=masks)


def _sample(films: torch.Tensor, grid: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Sample with the edge continued on half of the films and with air around the others."""
    continued = F.grid_sample(films, grid, padding_mode="border", align_corners=False)
    beyond = grid.abs().amax(-1)[:, None] > 1
    air = beyond & happens(films.shape[0], 0.5, generator)
    return torch.where(air, torch.zeros_like(continued), continued)


def _expose(films: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    count = films.shape[0]
    gamma = torch.exp(0.45 * strength * _spread(count, generator)).view(-1, 1, 1, 1)
    gain = torch.exp(0.25 * strength * _spread(count, generator)).view(-1, 1, 1, 1)
    offset = 0.08 * strength * _spread(count, generator).view(-1, 1, 1, 1)
    return (films.clamp(1e-4, 1.0) ** gamma * gain + offset).clamp(0.0, 1.0)


def _degrade(films: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Blur a part of the films as a coarser detector would, and add quantum noise to all."""
    count, _, rows, columns = films.shape
    scale = float(_between(1, 0.35, 0.9, generator))
    small = F.interpolate(films, scale_factor=scale, mode="bilinear", antialias=True, align_corners=False)
    blurred = F.interpolate(small, size=(rows, columns), mode="bilinear", align_corners=False)
    chosen = happens(count, 0.35 * strength, generator)
    films = torch.where(chosen, blurred, films)
    amount = 0.025 * strength * torch.rand((count, 1, 1, 1), generator=generator)
    return (films + amount * torch.randn(films.shape, generator=generator)).clamp(0.0, 1.0)


def _background(films: torch.Tensor, lungs: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Away from the lungs: brighten or darken smoothly, or show another film's surroundings."""
    count, _, rows, columns = films.shape
    near = widen(lungs, BODY_MARGIN)
    # A film whose lungs are unknown has no background that could be changed safely.
    known = lungs.amax(dim=(1, 2, 3), keepdim=True) > 0
    far = torch.where(known, 1.0 - near, torch.zeros_like(near))
    field = F.interpolate(
        torch.randn((count, 1, 5, 5), generator=generator),
        size=(rows, columns),
        mode="bilinear",
        align_corners=False,
    )
    lit = happens(count, 0.5 * strength, generator)
    films = torch.where(lit, films + 0.16 * far * field, films)
    other = films[torch.randperm(count, generator=generator)]
    swapped = happens(count, 0.15 * strength, generator)
    return torch.where(swapped, films * (1 - far) + other * far, films).clamp(0.0, 1.0)


def _collimate(films: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Cover up to a tenth of each side of a part of the films with black or a shade of grey."""
    count, _, rows, columns = films.shape
    chosen = happens(count, 0.3 * strength, generator)
    widths = 0.1 * torch.rand((count, 4), generator=generator) ** 2
    row = torch.linspace(0, 1, rows).view(1, 1, -1, 1)
    column = torch.linspace(0, 1, columns).view(1, 1, 1, -1)
    top, bottom, left, right = (w.view(-1, 1, 1, 1) for w in widths.unbind(1))
    covered = (row < top) | (row > 1 - bottom) | (column < left) | (column > 1 - right)
    shade = torch.rand((count, 1, 1, 1), generator=generator)
    shade = torch.where(happens(count, 0.6, generator), 0.0, shade)
    return torch.where(chosen & covered, shade, films)


def _letter(films: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Burn one or two texts into half of the films and blacken a patch of a corner in a quarter."""
    films = films.clone()
    count, _, rows, columns = films.shape
    draws = torch.rand((count, 12), generator=generator).tolist()
    for index, draw in enumerate(draws):
        if draw[0] < BLACKENED * strength:
            height, width = int(rows * (0.08 + 0.15 * draw[1])), int(columns * (0.08 + 0.15 * draw[2]))
            top, left = round(draw[3]) * (rows - height), round(draw[4]) * (columns - width)
            films[index, 0, top : top + height, left : left + width] = 0.0
        for start in (5, 8):
            if draw[start] < LETTERED * strength:
                _burn(films[index, 0], draw[start] / (LETTERED * strength), draw[start + 1], draw[start + 2])
    return films


def _burn(film: torch.Tensor, choice: float, across: float, down: float) -> None:
    rows, columns = film.shape
    glyphs = render_text(TEXTS[int(choice * len(TEXTS)) % len(TEXTS)], 8 + int(choice * 7919) % 17)
    height, width = min(glyphs.shape[0], rows), min(glyphs.shape[1], columns)
    # Mostly near the sides, where markers are placed, but anywhere in principle.
    across = abs(round(choice) - across**2 * 0.5)
    top, left = int(down * (rows - height)), int(across * (columns - width))
    place = film[top : top + height, left : left + width]
    torch.maximum(place, glyphs[:height, :width], out=place)


def happens(count: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """Return True for about `share` of the films, bool (count, 1, 1, 1)."""
    return torch.rand((count, 1, 1, 1), generator=generator) < share


def widen(masks: torch.Tensor, margin: int) -> torch.Tensor:
    """Return masks of shape (batch, 1, rows, columns) grown by about `margin` pixels, with soft edges."""
    # A quarter of the resolution is enough for a soft edge, and sixteen times cheaper.
    coarse = F.avg_pool2d(masks, 4)
    size = 2 * round(margin / 4) + 1
    grown = F.max_pool2d(coarse, size, stride=1, padding=size // 2)
    soft = F.avg_pool2d(grown, 3, stride=1, padding=1)
    return F.interpolate(soft, size=masks.shape[-2:], mode="bilinear", align_corners=False)


def render_text(text: str, size: int) -> torch.Tensor:
    """Return white letters on black, float32 (rows, columns) in [0, 1]; `size` is in pixels."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    picture = Pillow.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2))
    ImageDraw.Draw(picture).text((1 - left, 1 - top), text, fill=255, font=font)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def _spread(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return numbers in [-1, 1], denser near 0."""
    return torch.rand((count, 2), generator=generator).sum(dim=1) - 1.0


def _between(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)
