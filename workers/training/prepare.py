"""Reads films, estimates their lungs, draws phantoms: all that comes before the first step, kept on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from service.errors import SettingsError
from workers.phantom.film import make_phantom
from workers.preprocess import resize
from workers.training.corpus import Corpus, PhantomSet, as_films
from workers.training.films import decode, find_clear_films, find_films, split_by_patient
from workers.training.lung_network import SIDE, outline_lungs, teach_lungs
from workers.training.lungs import lungs_by_threshold

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from workers.training.films import FilmSet
    from workers.training.settings import TrainingSettings

HELD_OUT = 5
"""For so many training phantoms one is drawn for validation."""
SEEDS = 10_000_000
"""Distance between the phantoms' seeds of two runs."""
WINDOW = (0.5, 99.8)
"""Percentiles of a phantom's values that its DICOM window shows as black and white."""
FEWEST_CLEAR = 4
"""Films with lungs found by rule below which no network can be taught."""


def prepare(
    settings: TrainingSettings,
    *,
    data: Path,
    clear: Path | None,
    runs: Path,
    progress: Callable[[str, int], Callable[[int], None]],
) -> tuple[Corpus, Corpus]:
    """Return (training, validation); the films of `clear` are in the first alone.

    `progress` is called with a title and a total, and returns what to call with the amount done.

    Raises:
        SettingsError: the folder has no films of a class, or no validation film of a class.
    """
    films = find_films(data, negative=settings.data.negative, positive=settings.data.positive)
    parts = split_by_patient(films, share=settings.data.validation_share, seed=settings.seed)
    if clear is not None:
        parts[0].extend(find_clear_films(clear, negative=settings.data.negative))
    size = {"rows": settings.data.side, "columns": settings.data.side}
    advance = progress("reading films", sum(map(len, parts)))
    training, validation = (
        decode(part, **size, cache=runs / f"{name}.npz", advance=advance)
        for name, part in zip(("training", "validation"), parts, strict=True)
    )
    for kind, part in (("training", training), ("validation", validation)):
        if set(part.labels.tolist()) != {0, 1}:
            raise SettingsError(f"{data}: the {kind} films are all of one class; more patients are needed")
    lungs = _lungs(settings, training, validation, cache=runs / "lungs.npz", progress=progress)
    count = settings.synthesis.phantoms
    advance = progress("drawing phantoms", count + count // HELD_OUT)
    # Seeds far apart, so that no validation phantom is a training phantom.
    drawn = draw_phantoms(count, first=settings.seed * SEEDS, **size, advance=advance)
    held = draw_phantoms(count // HELD_OUT, first=settings.seed * SEEDS + SEEDS // 2, **size, advance=advance)
    return (
        Corpus(films=training, lungs=lungs[0], phantoms=drawn),
        Corpus(films=validation, lungs=lungs[1], phantoms=held),
    )


def draw_phantoms(count: int, *, first: int, rows: int, columns: int, advance: Callable[[int], None]) -> PhantomSet:
    """Draw `count` phantoms from the seed `first` on, every second one with one to three opacities."""
    pixels = np.zeros((count, rows, columns), dtype=np.uint8)
    lungs, masks = np.zeros_like(pixels), np.zeros_like(pixels)
    for index in range(count):
        phantom = make_phantom(first + index, (rows, columns), opacities=(index % 2) * (1 + index // 2 % 3))
        low, high = np.percentile(phantom.pixels, WINDOW)
        grey = (phantom.pixels - low) / max(float(high - low), 1.0)
        pixels[index] = np.round(np.clip(grey, 0, 1) * 255)
        lungs[index], masks[index] = phantom.lungs * 255, phantom.opacities * 255
        advance(1)
    coarse = [(shrink(mask) > 127).astype(np.uint8) for mask in (lungs, masks)]  # noqa: PLR2004 - half
    return PhantomSet(pixels=pixels, lungs=coarse[0], masks=coarse[1])


def _lungs(
    settings: TrainingSettings,
    training: FilmSet,
    validation: FilmSet,
    *,
    cache: Path,
    progress: Callable[[str, int], Callable[[int], None]],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Outline every film's lungs by a network that the training films' clear lungs taught."""
    epochs = settings.synthesis.lung_epochs
    empty = tuple(np.zeros((len(part), SIDE, SIDE), dtype=np.uint8) for part in (training, validation))
    if epochs == 0:
        return empty[0], empty[1]
    identity = f"{settings.seed}-{epochs}-{_checksum(training)}-{_checksum(validation)}"
    if cache.exists():
        with np.load(cache) as stored:
            if str(stored["identity"]) == identity:
                return stored["training"], stored["validation"]
    small = shrink(training.pixels[training.labels == 0])
    by_rule = [(film, mask) for film in small if (mask := lungs_by_threshold(film)) is not None]
    if len(by_rule) < FEWEST_CLEAR:
        return empty[0], empty[1]
    clear = np.stack([film for film, _ in by_rule])
    known = np.stack([mask for _, mask in by_rule]).astype(np.uint8)
    advance = progress("learning lung outlines", epochs * len(clear))
    network = teach_lungs(clear, known, epochs=epochs, seed=settings.seed, advance=advance)
    outlines = outline_lungs(network, training.pixels), outline_lungs(network, validation.pixels)
    np.savez_compressed(cache, identity=np.array(identity), training=outlines[0], validation=outlines[1])
    return outlines


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return films (n, rows, columns) as (n, SIDE, SIDE), anti-aliased."""
    parts = [
        (resize(as_films(pixels[i : i + 256]), SIDE, SIDE)[:, 0] * 255).round().to(torch.uint8).numpy()
        for i in range(0, len(pixels), 256)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, SIDE, SIDE), dtype=np.uint8)


def _checksum(films: FilmSet) -> str:
    return f"{films.pixels.shape}-{int(films.pixels.sum(dtype=np.uint64))}-{int(films.labels.sum())}"
