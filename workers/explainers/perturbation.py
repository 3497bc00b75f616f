"""What the sampling methods share: their parameters, and the loop that asks until the ranking is stable."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from workers.explainers.bounds import choice, real, whole
from workers.explainers.hiding import REPLACEMENTS
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workers.explainers.pool import Pool
    from workers.explainers.sampling import Estimate, Floats


STEP = 32
"""Pairs between two looks at the values."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a sampling method asks; checked when it is made.

    Raises:
        ValueError: a value is out of its bounds; the message names it.
    """

    samples: int
    """At most so many forward passes."""
    stability: float
    """It stops when an independent repeat would correlate this well with the values (0 to 1)."""
    seed: int
    replacement: str

    def __post_init__(self) -> None:
        whole("samples", self.samples, 16, 1_000_000)
        real("stability", self.stability, 0.0, 1.0)
        whole("seed", self.seed, 0, 2**32 - 1)
        choice("replacement", self.replacement, REPLACEMENTS)

    def described(self) -> dict[str, str]:
        """Return the parameters for the record."""
        return {
            "samples": f"at most {self.samples}",
            "stability": f"{self.stability:g}",
            "seed": str(self.seed),
            "replacement": self.replacement,
        }


class Question(Protocol):
    """A way to ask: what was asked so far, and what follows from it."""

    @property
    def asked(self) -> int:
        """Forward passes that the values rest on."""

    def ask(self, pairs: int) -> None:
        """Ask about that many coalitions and their complements."""

    def estimate(self) -> Estimate:
        """Return the values so far."""


def until_stable(question: Question, sampling: Sampling, first: int, step: int) -> Estimate:
    """Ask in pairs until the ranking of regions is stable or the samples are used up.

    Args:
        question: what is asked.
        sampling: when to stop.
        first: pairs before the first look.
        step: pairs between looks.
    """
    left = (sampling.samples - question.asked) // 2
    question.ask(max(1, min(first, left)))
    while True:
        found = question.estimate()
        left = (sampling.samples - question.asked) // 2
        if left < 1 or found.stability() >= sampling.stability:
            return found
        question.ask(min(step, left))


def on_regions(values: Floats, regions: NDArray[np.intp]) -> torch.Tensor:
    """Paint the value of each region on its places, float32 of the regions' shape."""
    return torch.from_numpy(values.astype(np.float32)[regions])


class Clock:
    """Wall time of one call, shared by the labels that it explains."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def share(self, labels: Sequence[int]) -> float:
        """Return seconds for one label."""
        return (time.perf_counter() - self._begun) / max(len(labels), 1)


def explained_regions(
    estimate: Estimate,
    labels: Sequence[int],
    pool: Pool,
    samples: int,
    *,
    parameters: dict[str, str],
    clock: Clock,
) -> list[Explanation]:
    """Return one explanation per label from the values of regions, whose columns are the labels asked for."""
    seconds = clock.share(labels)
    described = {**parameters, "regions": str(pool.count), "precision": pool.hidden.forwards.precision}
    return [
        Explanation(
            label=label,
            map=on_regions(estimate.values[:, column], pool.regions),
            parameters=described,
            seconds=seconds,
            measures=estimate.measures(column, samples),
        )
        for column, label in enumerate(labels)
    ]
