"""Reads films, estimates their lungs, draws phantoms: all that comes before the first step, kept on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from service.errors import SettingsError
from workers.preprocess import resize
from workers.training.corpus import Corpus, as_films
from workers.training.films import decode, find_films, split_by_patient
from workers.training.lung_network import SIDE, outline_lungs, teach_lungs
from workers.training.lungs import lungs_by_threshold

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from workers.training.films import FilmSet
    from workers.training.settings import TrainingSettings

FEWEST_CLEAR = 4
"""Films with lungs found by rule below which no network can be taught."""


def prepare(
    settings: TrainingSettings, *, data: Path, runs: Path, progress: Callable[[str, int], Callable[[int], None]]
) -> tuple[Corpus, Corpus]:
    """Return (training, validation).

    `progress` is called with a title and a total, and returns what to call with the amount done.

    Raises:
        SettingsError: the folder has no films of a class, or no validation film of a class.
    """
    films = find_films(data, negative=settings.data.negative, positive=settings.data.positive)
    parts = split_by_patient(films, share=settings.data.validation_share, seed=settings.seed)
    size = {"rows": settings.package.input.rows, "columns": settings.package.input.columns}
    advance = progress("reading films", len(films))
    training, validation = (
        decode(part, **size, cache=runs / f"{name}.npz", advance=advance)
        for name, part in zip(("training", "validation"), parts, strict=True)
    )
    for kind, part in (("training", training), ("validation", validation)):
        if set(part.labels.tolist()) != {0, 1}:
            raise SettingsError(f"{data}: the {kind} films are all of one class; more patients are needed")
    lungs = _lungs(settings, training, validation, cache=runs / "lungs.npz", progress=progress)
    return _corpus(training, lungs[0]), _corpus(validation, lungs[1])


def _corpus(films: FilmSet, lungs: NDArray[np.uint8]) -> Corpus:
    none = np.zeros((0, SIDE, SIDE), dtype=np.uint8)
    return Corpus(films=films, lungs=lungs, phantoms=none, phantom_lungs=none, phantom_masks=none)


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
