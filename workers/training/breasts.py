"""Breast shadows, laid over films of either class: soft tissue that brightens the lower lungs and is no finding.

A breast attenuates most just above its lower fold, which ends it in an arc, and fades upwards; vessels and ribs
stay visible through it. Children's films teach a network nothing of the kind.
"""

from __future__ import annotations

import torch

HALF = 0.5
"""A mask between 0 and 1 counts as lung from here on."""
THINNED = 37
"""Of so many pixels outside the lungs one is looked at for the mediastinum's brightness."""


def lay_breasts(films: torch.Tensor, lungs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Lay two breast shadows, alike but for a little, over each film whose lungs are known.

    Args:
        films: float32 (batch, 1, rows, columns) in [0, 1], MONOCHROME2.
        lungs: likewise, 1 inside the lung fields.
        generator: the only source of chance.
    """
    inside = lungs > HALF
    known = inside.any(dim=3).any(dim=2)[:, :, None, None]
    top, bottom = _extent(inside.any(dim=3))
    left, right = _extent(inside.any(dim=2))
    height, reach = bottom - top, (right - left) / 2
    count, _, rows, columns = films.shape
    row, column = torch.arange(rows).view(1, 1, -1, 1), torch.arange(columns).view(1, 1, 1, -1)
    place, width, fold, depth, fade, edge, fullness, amount = (
        _uniform(count, *span, generator)
        for span in (
            (0.45, 0.75),  # centre, of the way from the midline to the lung's side
            (0.35, 0.6),  # half width, of the same
            (0.6, 1.0),  # lowest point of the fold, of the lungs' height
            (0.08, 0.3),  # how far the fold rises to its sides, of the same
            (0.35, 0.8),  # how far up the shadow reaches, of the same
            (0.0045, 0.018),  # softness of the fold, of the film's height
            (0.5, 1.3),  # how the shadow thins upwards
            (0.15, 0.75),  # density, of the way from lung to mediastinum
        )
    )
    shadow = torch.zeros_like(films)
    for side in (-1.0, 1.0):
        centre = (left + right) / 2 + side * reach * (place + _uniform(count, -0.06, 0.06, generator))
        lowest = top + height * (fold + _uniform(count, -0.05, 0.05, generator))
        across = ((column - centre) / (reach * width).clamp_min(1.0)).clamp(-1.0, 1.0)
        round_ = torch.sqrt(1.0 - across**2)
        above = lowest - height * depth * (1.0 - round_) - row
        thinning = (1.0 - above.clamp_min(0.0) / (height * fade).clamp_min(1.0)).clamp(0.0, 1.0) ** fullness
        shadow = torch.maximum(shadow, torch.sigmoid(above / (edge * rows)) * thinning * round_)
    lung = _mean(films, inside)
    outside = torch.where(inside, torch.zeros_like(films), films).flatten(2)[..., ::THINNED]
    mediastinum = outside.quantile(0.85, dim=2, keepdim=True)[..., None]
    # What is bright already brightens less, as on the shoulder of a film's curve.
    shoulder = (1.0 - films) / (1.0 - lung).clamp_min(0.05)
    laid = (films + amount * shadow * (mediastinum - lung).clamp_min(0.05) * shoulder).clamp(0.0, 1.0)
    return torch.where(known, laid, films)


def _extent(occupied: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first and last occupied index of shape (batch, 1, size), float32 (batch, 1, 1, 1) each."""
    size = occupied.shape[-1]
    numbers = occupied.float()
    first, last = numbers.argmax(dim=2), size - 1 - numbers.flip(2).argmax(dim=2)
    return first.float()[:, :, None, None], last.float()[:, :, None, None]


def _mean(films: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    weights = inside.float()
    return (films * weights).sum(dim=(2, 3), keepdim=True) / weights.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)
