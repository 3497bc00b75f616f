"""A small network that outlines lungs on any film, taught by clear films with opacities painted over them.

A rule finds the lungs of a clear film; a consolidated lung is as bright as the heart, and there the rule fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workers.device import autocast
from workers.preprocess import resize, standardize
from workers.training.augment import Batch, augment, happens
from workers.training.plant import plant, veil

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIDE = 112
"""Rows and columns of its input and of its masks."""
BATCH = 32
LOST = 0.4
"""A lung smaller than this share of the other was probably not seen."""


class LungNetwork(nn.Module):
    """A U-Net of three levels (Ronneberger et al. 2015, arXiv:1505.04597) on (batch, 1, SIDE, SIDE)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.down3 = _level(1, 12), _level(12, 24), _level(24, 48)
        self.bottom = _level(48, 64)
        self.up3, self.up2, self.up1 = _level(64 + 48, 48), _level(48 + 24, 24), _level(24 + 12, 12)
        self.last = nn.Conv2d(12, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of the same shape as the input."""
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        third = self.down3(F.max_pool2d(second, 2))
        inner = self.bottom(F.max_pool2d(third, 2))
        inner = self.up3(torch.cat([F.interpolate(inner, scale_factor=2), third], dim=1))
        inner = self.up2(torch.cat([F.interpolate(inner, scale_factor=2), second], dim=1))
        logits: torch.Tensor = self.last(self.up1(torch.cat([F.interpolate(inner, scale_factor=2), first], dim=1)))
        return logits


def teach_lungs(
    films: NDArray[np.uint8],
    lungs: NDArray[np.uint8],
    *,
    epochs: int,
    seed: int,
    advance: Callable[[int], None],
) -> LungNetwork:
    """Teach a fresh network on films (n, SIDE, SIDE) with known lungs (n, SIDE, SIDE), 0 or 1.

    `advance` is called with the number of films done since the last call.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = LungNetwork()
    steps = epochs * (len(films) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=max(steps, 2))
    for _ in range(steps):
        chosen = torch.randint(len(films), (BATCH,), generator=generator).numpy()
        batch = _harder(_batch(films[chosen], lungs[chosen]), generator)
        with autocast(torch.device("cpu")):
            logits = network(standardize(batch.films))
        loss = _dice_and_entropy(logits.float(), batch.lungs)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
        advance(BATCH)
    return network.eval()


def outline_lungs(network: LungNetwork, films: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return masks (n, SIDE, SIDE), 0 or 1, of films (n, rows, columns)."""
    masks = []
    with torch.inference_mode():
        for start in range(0, len(films), 64):
            grey = torch.from_numpy(films[start : start + 64]).float()[:, None] / 255
            logits = network(standardize(resize(grey, SIDE, SIDE)))
            masks.append((logits[:, 0] > 0).to(torch.uint8).numpy())
    return np.stack([complete_lungs(mask) for mask in np.concatenate(masks)])


def complete_lungs(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror the larger lung onto the other side where that one was all but missed, as in a white-out."""
    left, right = _halves(mask)
    small, large = sorted((left, right), key=lambda half: int(half.sum()))
    if small.sum() >= LOST * large.sum():
        return mask
    result: NDArray[np.uint8] = np.maximum(mask, large[:, ::-1])
    return result


def _halves(mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    left, right = mask.copy(), mask.copy()
    middle = mask.shape[1] // 2
    left[:, middle:] = 0
    right[:, :middle] = 0
    return left, right


def _level(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _batch(films: NDArray[np.uint8], lungs: NDArray[np.uint8]) -> Batch:
    grey = torch.from_numpy(films).float()[:, None] / 255
    known = torch.from_numpy(lungs).float()[:, None]
    return Batch(films=grey, lungs=known, masks=torch.zeros_like(known))


def _harder(batch: Batch, generator: torch.Generator) -> Batch:
    """Paint opacities and a haze of one side over most films, then change pose and exposure."""
    films = batch.films
    for _ in range(2):
        films = plant(films, batch.lungs, generator).films
    side = torch.zeros_like(films)
    side[..., : SIDE // 2] = 1.0
    left = happens(len(films), 0.5, generator)
    white = happens(len(films), 0.35, generator).float()
    films = veil(films, batch.lungs, white * torch.where(left, side, 1 - side))
    sick = happens(len(films), 0.7, generator)
    films = torch.where(sick, films, batch.films)
    return augment(Batch(films=films, lungs=batch.lungs, masks=batch.masks), generator)


def _dice_and_entropy(logits: torch.Tensor, lungs: torch.Tensor) -> torch.Tensor:
    share = torch.sigmoid(logits)
    overlap = 2 * (share * lungs).sum(dim=(1, 2, 3)) + 1
    dice = overlap / (share.sum(dim=(1, 2, 3)) + lungs.sum(dim=(1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, lungs) + 1 - dice.mean()
