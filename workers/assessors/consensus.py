"""One map out of several: where the methods that passed agree, and how far they spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from service.results import Measure
from workers.assessors.case import Subject, correlation, on_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

METHOD = "consensus"
TITLE = "Consensus"
FEWEST = 2
"""Methods below which there is nothing to agree on."""
PEAK = 99.5
"""Percentile of a map's magnitude that becomes 1, so that one hot pixel does not dwarf a method."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Consensus:
    """Mean and standard deviation of several maps, float32, on the grid of the network's input."""

    map: torch.Tensor
    spread: torch.Tensor
    methods: tuple[str, ...]
    """Titles."""


def consensus(subjects: Sequence[Subject], *axes: int) -> Consensus | None:
    """Return the weighted mean of the maps, each scaled to its own peak, or None when there are too few.

    Near copies (Grad-CAM and HiResCAM on a linear head are the same map) share one vote: a map's weight is one over
    the sum of its squared correlations with all of them.
    """
    if len(subjects) < FEWEST:
        return None
    maps = np.stack([_scaled(on_grid(subject.map, *axes)) for subject in subjects])
    coarse = [subject.cells for subject in subjects]
    kinship = np.array([[max(correlation(a, b), 0.0) ** 2 for b in coarse] for a in coarse])
    weights = 1.0 / np.maximum(kinship.sum(axis=1), 1.0)
    weights = (weights / weights.sum()).reshape(-1, *[1] * len(axes))
    mean = (weights * maps).sum(axis=0)
    spread = np.sqrt((weights * (maps - mean) ** 2).sum(axis=0))
    return Consensus(
        map=torch.from_numpy(mean.astype(np.float32)),
        spread=torch.from_numpy(spread.astype(np.float32)),
        methods=tuple(subject.title for subject in subjects),
    )


def medians(members: Sequence[Sequence[Measure]], own: Sequence[Measure]) -> list[Measure]:
    """Return the members' median of what all of them have and the consensus cannot measure of itself."""
    known = {measure.name for measure in own}
    named = [{measure.name: measure for measure in measures} for measures in members]
    shared = [m for m in members[0] if m.name not in known and all(m.name in other for other in named)]
    return [
        Measure(
            name=measure.name,
            title=f"{measure.title} (median of its methods)",
            value=float(np.median([other[measure.name].value for other in named])),
            baseline=measure.baseline,
            unit=measure.unit,
        )
        for measure in shared
    ]


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    peak = float(np.percentile(np.abs(values), PEAK)) or float(np.abs(values).max())
    return np.clip(values / peak, -1, 1) if peak > 0 else values
