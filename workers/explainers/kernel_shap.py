"""KernelSHAP: Shapley values of regions by regression, with every coalition paired with its complement."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

import numpy as np

from workers.explainers.bounds import whole
from workers.explainers.kriging import MOST, Kriging, shapley_of_kernel
from workers.explainers.perturbation import STEP, Clock, Sampling, explained_regions, until_stable
from workers.explainers.pool import pool_of
from workers.explainers.sampling import SPARE, Estimate, every_coalition, half_shares, pair_shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from workers.explainers.pool import Pool
    from workers.explainers.sampling import Floats, Shown
    from workers.interfaces import Classifier, Explanation

SINGULAR = 1e-10
"""Share of the largest eigenvalue below which one is zero."""


class KernelShap:
    """Shapley values over superpixels.

    Sources: Lundberg and Lee 2017, arXiv:1705.07874 (the regression); Covert and Lee 2021, arXiv:2012.01536 (pairs);
    Musco and Witter 2025, arXiv:2410.01917 (which coalitions to ask). The values always add up to the logit of the
    image less that of the hidden image. When all coalitions fit into `samples` the values are exact.

    Coalitions of half the regions, which LIME asks about as well, come first: they tell the regions apart best. Those
    of other sizes then say by how much Shapley values differ. With few samples the values are those of what
    `workers.explainers.kriging` makes of the answers, with many those of a regression over them.

    Args:
        regions: about how many superpixels.
        samples: at most so many forward passes.
        stability: stop when an independent repeat would correlate this well with the values.
        replacement: `dark`, `mean` or `blur`, what hides a region.
        seed: of the coalitions.
    """

    name = "kernel-shap"
    title = "SHAP (KernelSHAP)"

    def __init__(
        self,
        *,
        regions: int = 56,
        samples: int = 256,
        stability: float = 0.8,
        replacement: str = "dark",
        seed: int = 0,
    ) -> None:
        self._regions = whole("regions", regions, 2, 1000)
        self._sampling = Sampling(samples=samples, stability=stability, seed=seed, replacement=replacement)
        self.cost = samples

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label; a region's value is its Shapley value in logits, on the input's grid.

        Raises:
            UnsupportedMethodError: the input has slices, or there is no memory for one forward pass.
        """
        clock = Clock()
        pool = pool_of(classifier, batch, self._regions, self._sampling.replacement, self._sampling.seed)
        found, asked = self._values(pool, labels)
        return explained_regions(found, labels, pool, asked, parameters=self._sampling.described(), clock=clock)

    def _values(self, pool: Pool, labels: Sequence[int]) -> tuple[Estimate, int]:
        if 2**pool.count <= self._sampling.samples:
            values = exact_shapley(pool.ask(every_coalition(pool.count))[:, list(labels)])
            return Estimate(values=values, errors=np.zeros_like(values)), 2**pool.count
        block = 1 << pool.count.bit_length()
        # At least half of the samples are of all sizes: they alone know Shapley's weights.
        question = _Question(pool, labels, halves=min(block, self._sampling.samples // 4))
        found = until_stable(question, self._sampling, first=max(block // 2, SPARE), step=STEP)
        return found, question.asked


class _Question:
    """Coalitions of half the regions, then of all sizes, with their complements; nothing and everything too."""

    def __init__(self, pool: Pool, labels: Sequence[int], *, halves: int) -> None:
        self._pool, self._labels = pool, list(labels)
        self._halves, self._pairs = halves, 0

    @property
    def asked(self) -> int:
        """Forward passes that the values rest on."""
        return 2 + 2 * (self._halves + self._pairs)

    def ask(self, pairs: int) -> None:
        """Ask about coalitions of all sizes and their complements."""
        self._pairs += pairs

    def estimate(self) -> Estimate:
        """Return the values of the regions."""
        ends = self._pool.ends()[:, self._labels]
        (halves, first), (drawn, second) = self._pool.halves(self._halves), self._pool.leveraged(self._pairs)
        shown = np.concatenate([halves, drawn])
        answers = np.concatenate([first, second])[:, :, self._labels]
        if self.asked <= MOST:
            return interpolated(shown, answers, ends)
        return regression(shown, (answers[:, 0] - answers[:, 1]) / 2, ends[1] - ends[0], halves=self._halves)


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


def interpolated(shown: Shown, answers: Floats, ends: Floats) -> Estimate:
    """Return the Shapley values of a process that interpolates the answers.

    Args:
        shown: bool (pairs, regions), one coalition of each pair.
        answers: logits of each and of its complement, (pairs, 2, labels).
        ends: logits of the hidden image and of the whole one, (2, labels).
    """
    pairs, count = shown.shape
    asked = np.concatenate(
        [
            np.stack([shown, ~shown], axis=1).reshape(2 * pairs, count),
            np.stack([np.zeros(count, dtype=bool), np.ones(count, dtype=bool)]),
        ]
    )
    fitted = Kriging.fit(asked, np.concatenate([answers.reshape(2 * pairs, -1), ends]))
    found = fitted.estimate(shapley_of_kernel(asked), np.eye(count, count + 1), pairs=pairs)
    # The process comes near to both ends, the values add up exactly.
    lacking = (ends[1] - ends[0] - found.values.sum(axis=0)) / count
    return Estimate(values=found.values + lacking, errors=found.errors)


def regression(shown: Shown, differences: Floats, total: Floats, *, halves: int = 0) -> Estimate:
    """Solve the regression that defines Shapley values, over pairs, its sum held exactly.

    Writing a value as total / n plus a part that sums to zero, a coalition's row and its complement's differ in sign
    alone; so only half the difference of the two answers enters, and the sum needs no penalty.

    Args:
        shown: bool (pairs, regions), one coalition of each pair: first `halves` of them by `balanced_halves`, then
            those drawn by `leveraged`.
        differences: half the answer of each coalition less half that of its complement, (pairs, labels), logits.
        total: the logit of the image less that of the hidden image, (labels,).
        halves: how many pairs are by `balanced_halves`.
    """
    pairs, count = shown.shape
    size = shown.sum(axis=1)
    rows = shown - size[:, None] / count
    wanted = differences - (size / count - 0.5)[:, None] * total
    weight = _weights(count, size, halves)[:, None]
    gram = rows.T @ (rows * weight)
    # Singular along (1, ..., 1) by construction, which rounding must not undo.
    influence = (rows * weight) @ np.linalg.pinv(gram, rcond=SINGULAR, hermitian=True)
    parts = influence.T @ wanted
    residual = wanted - rows @ parts
    values = parts - parts.mean(axis=0) + total / count
    free = pairs - (count - 1)
    if free < SPARE:
        return Estimate(values=values, errors=np.full_like(values, np.inf))
    variance = np.square(influence).T @ np.square(residual) * (pairs / free)
    return Estimate(values=values, errors=np.sqrt(variance))


def _weights(count: int, size: NDArray[np.intp], halves: int) -> Floats:
    """Return Shapley's kernel over how often a pair of that size is drawn, by both ways together; mean 1."""
    pairs = len(size)
    inner = np.clip(size, 1, count - 1)
    # Lundberg and Lee 2017, theorem 2; a pair of nothing and everything is known, and weighs nothing.
    mass = np.where(2 * size == count, 1.0, 2.0) / (inner * (count - inner)) * (size == inner)
    drawn = ((pairs - halves) * pair_shares(count, inner) + halves * half_shares(count, inner)) / pairs
    weight = mass / drawn
    scaled: Floats = weight / weight.mean()
    return scaled
