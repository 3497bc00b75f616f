"""LIME: a linear model of what the network does when regions of the image are hidden."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from workers.explainers.bounds import real, whole
from workers.explainers.kriging import MOST, Kriging, LimeMeans
from workers.explainers.perturbation import STEP, Clock, Sampling, explained_regions, until_stable
from workers.explainers.pool import pool_of
from workers.explainers.sampling import SPARE, Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from workers.explainers.pool import Pool
    from workers.explainers.sampling import Floats
    from workers.interfaces import Classifier, Explanation


class Lime:
    """Local interpretable model-agnostic explanations over superpixels.

    Source: Ribeiro, Singh and Guestrin 2016, "Why Should I Trust You?", arXiv:1602.04938. Coalitions are uniform; they
    weigh by how near they are to the whole image, exp(-d^2 / width^2) with d the cosine distance; a ridge regression
    with intercept gives the values. The paper explains the probability; this explains the logit, whose effects add
    up where probabilities saturate. With few samples the regression is over all coalitions, answered by what
    `workers.explainers.kriging` makes of those that were asked.

    Args:
        regions: about how many superpixels.
        samples: at most so many forward passes.
        stability: stop when an independent repeat would correlate this well with the values.
        kernel_width: of the weights; 0.25 as in the authors' program.
        ridge: penalty per sample on squared values; 0.001 as in the authors' program (1 in all, 1,000 samples).
        replacement: `dark`, `mean` or `blur`, what hides a region.
        seed: of the coalitions.
    """

    name = "lime"
    title = "LIME"

    def __init__(
        self,
        *,
        regions: int = 56,
        samples: int = 240,
        stability: float = 0.8,
        kernel_width: float = 0.25,
        ridge: float = 0.001,
        replacement: str = "dark",
        seed: int = 0,
    ) -> None:
        self._regions = whole("regions", regions, 2, 1000)
        self._width = real("kernel_width", kernel_width, 1e-3, 100.0)
        self._ridge = real("ridge", ridge, 0.0, 100.0)
        self._sampling = Sampling(samples=samples, stability=stability, seed=seed, replacement=replacement)
        self.cost = samples

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label; a region's value is the logits that showing it adds, on the input's grid.

        Raises:
            UnsupportedMethodError: the input has slices, or there is no memory for one forward pass.
        """
        clock = Clock()
        pool = pool_of(classifier, batch, self._regions, self._sampling.replacement, self._sampling.seed)
        question = _Question(pool, labels, width=self._width, ridge=self._ridge)
        block = 1 << pool.count.bit_length()
        found = until_stable(question, self._sampling, first=max(block, pool.count + SPARE), step=STEP)
        parameters = {
            **self._sampling.described(),
            "kernel width": f"{self._width:g}",
            "ridge": f"{self._ridge:g}",
        }
        return explained_regions(found, labels, pool, question.asked, parameters=parameters, clock=clock)


class _Question:
    """Coalitions of about half the regions with their complements."""

    def __init__(self, pool: Pool, labels: Sequence[int], *, width: float, ridge: float) -> None:
        self._pool, self._labels = pool, list(labels)
        self._width, self._ridge = width, ridge
        self._pairs = 0

    @property
    def asked(self) -> int:
        """Forward passes that the values rest on."""
        return 2 * self._pairs

    def ask(self, pairs: int) -> None:
        """Ask about coalitions and their complements."""
        self._pairs += pairs

    def estimate(self) -> Estimate:
        """Return the values of the regions by weighted ridge regression."""
        drawn, answers = self._pool.halves(self._pairs)
        shown = np.stack([drawn, ~drawn], axis=1).reshape(2 * self._pairs, -1)
        logits = answers.reshape(2 * self._pairs, -1)[:, self._labels]
        fit = surrogate if len(shown) > MOST else interpolated
        return fit(shown, logits, width=self._width, ridge=self._ridge)


def weights(shown: NDArray[np.bool_], width: float) -> Floats:
    """Return the kernel's weight of each coalition, (count,); d is the cosine distance to the whole image."""
    return _weight(shown.mean(axis=1), width)


def _weight(share: Floats, width: float) -> Floats:
    weight: Floats = np.exp(-np.square((1.0 - np.sqrt(share)) / width))
    return weight


def interpolated(shown: NDArray[np.bool_], answers: Floats, *, width: float, ridge: float) -> Estimate:
    """Fit the linear model to all coalitions, answered by a process that interpolates those that were asked.

    Arguments and result are those of `surrogate`, of which it is the limit with ever more coalitions.
    """
    count = shown.shape[1]
    means = _means(count, width)
    gram = means.gram()
    inverse = np.linalg.pinv(gram + np.diag([*[ridge] * count, 0.0]), hermitian=True)[:count]
    return Kriging.fit(shown, answers).estimate(inverse @ means.moments(shown), inverse @ gram, pairs=len(shown) // 2)


@lru_cache(maxsize=8)
def _means(count: int, width: float) -> LimeMeans:
    return LimeMeans(weight=_weight(np.arange(count + 1) / count, width))


def surrogate(shown: NDArray[np.bool_], answers: Floats, *, width: float, ridge: float) -> Estimate:
    """Fit the linear model.

    Args:
        shown: bool (2 pairs, regions), each coalition followed by its complement.
        answers: logits, (2 pairs, labels).
        width: of the kernel.
        ridge: penalty per sample.

    Returns:
        Values and standard errors, (regions, labels). The errors are a sandwich estimate whose independent units are
        the pairs, so that what the linear model misses counts as error.
    """
    pairs, count = len(shown) // 2, shown.shape[1]
    weight = weights(shown, width)
    design = np.concatenate([shown.astype(np.float64), np.ones((len(shown), 1))], axis=1)
    penalty = np.diag([*[ridge * len(shown)] * count, 0.0])
    inverse = np.linalg.pinv(design.T @ (design * weight[:, None]) + penalty, hermitian=True)
    influence = (design * weight[:, None]) @ inverse
    fitted = influence.T @ answers
    residual = answers - design @ fitted
    scores = (influence[:, :count, None] * residual[:, None, :]).reshape(pairs, 2, count, -1).sum(axis=1)
    free = pairs - count
    correction = pairs / free if free >= SPARE else np.inf
    errors = np.sqrt(np.square(scores).sum(axis=0) * correction) if free >= SPARE else np.full_like(fitted[:-1], np.inf)
    return Estimate(values=fitted[:-1], errors=errors)
