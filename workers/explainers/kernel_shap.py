"""KernelSHAP: Shapley values of regions by regression, with every coalition paired with its complement."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

import numpy as np

from workers.explainers.bounds import whole
from workers.explainers.perturbation import Clock, Sampling, explained_regions, hide, until_stable
from workers.explainers.sampling import SPARE, Estimate, every_coalition, leveraged, pair_shares, take
from workers.explainers.superpixels import superpixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from workers.explainers.hiding import HiddenImage
    from workers.explainers.sampling import Floats
    from workers.interfaces import Classifier, Explanation

SINGULAR = 1e-10
"""Share of the largest eigenvalue below which one is zero."""


class KernelShap:
    """Shapley values over superpixels.

    Sources: Lundberg and Lee 2017, arXiv:1705.07874 (the regression); Covert and Lee 2021, arXiv:2012.01536 (pairs);
    Musco and Witter 2025, arXiv:2410.01917 (which coalitions to ask). The values always add up to the logit of the
    image less that of the hidden image. When all coalitions fit into `samples` the values are exact.

    Args:
        regions: about how many superpixels.
        samples: at most so many forward passes.
        stability: stop when an independent repeat would correlate this well with the values.
        replacement: `dark`, `mean` or `blur`, what hides a region.
        seed: of the coalitions.
    """

    name = "kernel-shap"
    title = "SHAP (KernelSHAP)"
    cost = 300

    def __init__(
        self,
        *,
        regions: int = 56,
        samples: int = 320,
        stability: float = 0.8,
        replacement: str = "dark",
        seed: int = 0,
    ) -> None:
        self._regions = whole("regions", regions, 2, 1000)
        self._sampling = Sampling(samples=samples, stability=stability, seed=seed, replacement=replacement)

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label; a region's value is its Shapley value in logits, on the input's grid.

        Raises:
            UnsupportedMethodError: the input has slices, or there is no memory for one forward pass.
        """
        clock = Clock()
        regions = superpixels(batch, self._regions)
        hidden = hide(classifier, batch, self._sampling)
        found = self._values(hidden, regions, labels)
        parameters = self._sampling.described()
        return explained_regions(found, labels, regions, hidden, parameters=parameters, clock=clock)

    def _values(self, hidden: HiddenImage, regions: NDArray[np.intp], labels: Sequence[int]) -> Estimate:
        count = int(regions.max()) + 1
        if 2**count <= self._sampling.samples:
            answers = hidden.by_regions(every_coalition(count), regions)[:, list(labels)]
            values = exact_shapley(answers)
            return Estimate(values=values, errors=np.zeros_like(values))
        question = _Question(hidden, regions, labels, self._sampling.seed)
        return until_stable(question, hidden, self._sampling, first=count + 2 * SPARE, step=16)


class _Question:
    """Coalitions of all sizes with their complements; nothing and everything come first."""

    def __init__(self, hidden: HiddenImage, regions: NDArray[np.intp], labels: Sequence[int], seed: int) -> None:
        self._count = int(regions.max()) + 1
        self._hidden, self._regions, self._labels = hidden, regions, list(labels)
        self._coalitions = leveraged(self._count, np.random.default_rng(seed))
        ends = np.stack([np.zeros(self._count, dtype=bool), np.ones(self._count, dtype=bool)])
        nothing, everything = hidden.by_regions(ends, regions)[:, self._labels]
        self._total = everything - nothing
        self._shown = np.zeros((0, self._count), dtype=bool)
        self._halves = np.zeros((0, len(self._labels)))

    def ask(self, pairs: int) -> None:
        """Ask about coalitions and complements; half the difference is all that matters."""
        drawn = take(self._coalitions, pairs)
        answers = self._hidden.by_regions(np.concatenate([drawn, ~drawn]), self._regions)[:, self._labels]
        self._shown = np.concatenate([self._shown, drawn])
        self._halves = np.concatenate([self._halves, (answers[:pairs] - answers[pairs:]) / 2])

    def estimate(self) -> Estimate:
        """Return the values of the regions."""
        return regression(self._shown, self._halves, self._total)


def exact_shapley(answers: Floats) -> Floats:
    """Return Shapley values, (regions, labels), from the answers to all coalitions.

    Args:
        answers: (2 ** regions, labels); row i answers the coalition whose members are the bits of i.
    """
    count = len(answers).bit_length() - 1
    index = np.arange(len(answers))
    size = every_coalition(count).sum(axis=1)
    values = np.zeros((count, answers.shape[1]))
    for region in range(count):
        without = index[index >> region & 1 == 0]
        # |S|! (n - |S| - 1)! / n! (Shapley 1953)
        weight = np.array([1.0 / (count * comb(count - 1, int(s))) for s in size[without]])
        values[region] = weight @ (answers[without | 1 << region] - answers[without])
    return values


def regression(shown: NDArray[np.bool_], halves: Floats, total: Floats) -> Estimate:
    """Solve the regression that defines Shapley values, over pairs, its sum held exactly.

    Writing a value as total / n plus a part that sums to zero, a coalition's row and its complement's differ in sign
    alone; so only half the difference of the two answers enters, and the sum needs no penalty.

    Args:
        shown: bool (pairs, regions), one coalition of each pair, drawn by `leveraged`.
        halves: half the answer of each coalition less half that of its complement, (pairs, labels), logits.
        total: the logit of the image less that of the hidden image, (labels,).
    """
    pairs, count = shown.shape
    size = shown.sum(axis=1)
    rows = shown - size[:, None] / count
    wanted = halves - (size / count - 0.5)[:, None] * total
    # The kernel's mass of a pair of sizes over how often that pair is drawn (Lundberg and Lee 2017, theorem 2).
    mass = np.where(2 * size == count, 1.0, 2.0) / (size * (count - size))
    weight = (mass / pair_shares(count, size))[:, None]
    # Singular along (1, ..., 1) by construction, which rounding must not undo.
    inverse = np.linalg.pinv(rows.T @ (rows * weight), rcond=SINGULAR, hermitian=True)
    influence = (rows * weight) @ inverse
    parts = influence.T @ wanted
    residual = wanted - rows @ parts
    values = parts - parts.mean(axis=0) + total / count
    free = pairs - (count - 1)
    if free < SPARE:
        return Estimate(values=values, errors=np.full_like(values, np.inf))
    variance = np.square(influence).T @ np.square(residual) * (pairs / free)
    return Estimate(values=values, errors=np.sqrt(variance))
