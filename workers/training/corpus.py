"""Everything a run learns from, in memory, and how a batch is put together from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from workers.training.augment import Batch, happens
from workers.training.plant import plant, plant_outside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from workers.training.films import FilmSet
    from workers.training.settings import Synthesis

DECOYS = 0.15
"""Share of the real films that get a brightness planted outside the lungs, whatever their class."""


@dataclass(frozen=True, kw_only=True)
class PhantomSet:
    """Phantoms, uint8: `pixels` (n, rows, columns), MONOCHROME2; `lungs` and `masks` (n, i, j), 0 or 1.

    `masks` is 1 on the opacities and all 0 for a phantom of clear lungs.
    """

    pixels: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    masks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What one split holds. `lungs` is uint8 (films, i, j), 0 or 1, or all 0 where unknown."""

    films: FilmSet
    lungs: NDArray[np.uint8]
    phantoms: PhantomSet


@dataclass(frozen=True, kw_only=True)
class Example:
    """A batch before augmentation, with its classes: float32 (batch, 1), 0 or 1."""

    batch: Batch
    truth: torch.Tensor


def epoch_batches(corpus: Corpus, settings: Synthesis, *, size: int, seed: tuple[int, int]) -> Iterator[Example]:
    """Yield the batches of one epoch; `seed` (run, epoch) is the only source of chance.

    Both classes come equally often; the films of the larger class come once each.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    planted, phantoms, half = _shares(settings, size)
    order = [_endless(np.flatnonzero(corpus.films.labels == label), rng) for label in (0, 1)]
    clear = np.flatnonzero((corpus.films.labels == 0) & (corpus.lungs.any(axis=(1, 2))))
    for _ in range(steps_per_epoch(corpus, settings, size=size)):
        chosen = np.array([next(order[label]) for label in (0, 1) for _ in range(half)])
        parts = [_real(corpus, chosen, generator)]
        if planted and len(clear):
            parts.append(_planted(corpus, rng.choice(clear, planted), generator))
        if phantoms and len(corpus.phantoms):
            parts.append(phantom_example(_drawn(corpus.phantoms, rng.integers(len(corpus.phantoms), size=phantoms))))
        yield join(parts)


def steps_per_epoch(corpus: Corpus, settings: Synthesis, *, size: int) -> int:
    """Return how many batches `epoch_batches` yields."""
    *_, half = _shares(settings, size)
    larger = int(max((corpus.films.labels == label).sum() for label in (0, 1)))
    return max(1, larger // half)


def join(parts: list[Example]) -> Example:
    """Return one example of all."""
    return Example(
        batch=Batch(
            films=torch.cat([part.batch.films for part in parts]),
            lungs=torch.cat([part.batch.lungs for part in parts]),
            masks=torch.cat([part.batch.masks for part in parts]),
        ),
        truth=torch.cat([part.truth for part in parts]),
    )


def as_films(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Return uint8 (n, rows, columns) as float32 (n, 1, rows, columns) in [0, 1]."""
    return torch.from_numpy(pixels).float()[:, None] / 255


def as_masks(masks: NDArray[np.uint8], like: torch.Tensor) -> torch.Tensor:
    """Return uint8 masks (n, i, j) on the grid of `like`, float32 in [0, 1]."""
    if len(masks) == 0:
        return torch.zeros_like(like)
    coarse = torch.from_numpy(masks).float()[:, None]
    return F.interpolate(coarse, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _shares(settings: Synthesis, size: int) -> tuple[int, int, int]:
    """Return how many planted films, phantoms and real films of each class a batch holds."""
    planted, phantoms = round(size * settings.planted_share), round(size * settings.phantom_share)
    return planted, phantoms, max(1, (size - planted - phantoms) // 2)


def _endless(indices: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(indices).tolist()


def _real(corpus: Corpus, chosen: NDArray[np.int64], generator: torch.Generator) -> Example:
    films = as_films(corpus.films.pixels[chosen])
    lungs = as_masks(corpus.lungs[chosen], films)
    decoy = happens(len(films), DECOYS, generator) & (lungs.amax((1, 2, 3), True) > 0)
    films = torch.where(decoy, plant_outside(films, lungs, generator), films)
    truth = torch.from_numpy(corpus.films.labels[chosen]).float()[:, None]
    return Example(batch=Batch(films=films, lungs=lungs, masks=torch.zeros_like(films)), truth=truth)


def _planted(corpus: Corpus, chosen: NDArray[np.int64], generator: torch.Generator) -> Example:
    clear = as_films(corpus.films.pixels[chosen])
    lungs = as_masks(corpus.lungs[chosen], clear)
    planted = plant(clear, lungs, generator)
    truth = (planted.masks.amax(dim=(1, 2, 3)) > 0).float()[:, None]
    return Example(batch=Batch(films=planted.films, lungs=lungs, masks=planted.masks), truth=truth)


def phantom_example(phantoms: PhantomSet) -> Example:
    """Return phantoms as an example; one with an opacity has the finding."""
    films = as_films(phantoms.pixels)
    truth = torch.from_numpy(phantoms.masks.any(axis=(1, 2))).float()[:, None]
    batch = Batch(films=films, lungs=as_masks(phantoms.lungs, films), masks=as_masks(phantoms.masks, films))
    return Example(batch=batch, truth=truth)


def _drawn(phantoms: PhantomSet, chosen: NDArray[np.int64]) -> PhantomSet:
    return PhantomSet(pixels=phantoms.pixels[chosen], lungs=phantoms.lungs[chosen], masks=phantoms.masks[chosen])
