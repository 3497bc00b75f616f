"""What a network would answer to coalitions that nobody asked about, from its answers to some.

LIME and Shapley values are means over all coalitions. With few answers a mean over those that were asked wastes what
they tell of the others: networks answer alike to coalitions that are alike. So the answers are first interpolated by a
Gaussian process with a linear trend (universal kriging; Rasmussen and Williams 2006, "Gaussian Processes for Machine
Learning", section 2.7), and then the mean over *all* coalitions is taken of that, in closed form. Such a mean is linear
in the answers, so what each answer weighs is known, and with it the error. Values of sampled games by a model of the
game: Witter, Liu and Musco 2025, arXiv:2506.11849.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from workers.explainers.sampling import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.explainers.sampling import Floats, Shown

LENGTH = 0.5
"""Of the kernel exp(-d / LENGTH), d being twice the share of regions that differ. On five images and the compact model
lengths of 0.25 to 2 serve equally well."""
NUGGET = 0.003
"""Variance of an answer by rounding, in shares of the process's."""
MOST = 1200
"""Coalitions beyond which a regression over those that were asked is as good, and this takes too long."""


@dataclass(frozen=True, kw_only=True)
class Kriging:
    """The process, given answers.

    Made by `fit`. All matrices are over the coalitions that were asked.
    """

    answers: Floats
    """(asked, labels), logits."""
    trend: Floats
    """Trend by answers: what each answer adds to the trend's coefficients, (regions + 1, asked); the last is the
    intercept's."""
    residual: Floats
    """What each answer adds to the kernel's coefficients, (asked, asked)."""

    @classmethod
    def fit(cls, shown: Shown, answers: Floats) -> Kriging:
        """Interpolate.

        Args:
            shown: bool (asked, regions).
            answers: logits, (asked, labels).
        """
        inside = shown.astype(np.float64)
        count = inside.shape[1]
        signs = 2 * inside - 1
        covariance = np.exp((signs @ signs.T / count - 1) / LENGTH)
        inverse = np.linalg.inv(covariance + NUGGET * np.eye(len(shown)))
        basis = np.concatenate([inside, np.ones((len(shown), 1))], axis=1)
        weighed = inverse @ basis
        # A pseudo-inverse: with fewer answers than regions the smallest trend of all that fit is taken.
        trend = np.linalg.pinv(basis.T @ weighed, hermitian=True) @ weighed.T
        return cls(answers=answers, trend=trend, residual=inverse - weighed @ trend)

    def estimate(self, kernel: Floats, trend: Floats, *, pairs: int) -> Estimate:
        """Return values that are linear in what the network answers to all coalitions.

        Args:
            kernel: the values of the kernel around each asked coalition, (regions, asked).
            trend: the values of each region's trend and of the intercept, (regions, regions + 1).
            pairs: how many pairs, a coalition and its complement, come first among those that were asked. What comes
                after was not drawn and counts as no error.

        Returns:
            Values and standard errors, (regions, labels). An error is what a pair would change if it had been left out
            (leave-one-out, ibid. section 5.4.2), which repeats with other coalitions stay below.
        """
        influence = trend @ self.trend + kernel @ self.residual
        surprise = self.residual @ self.answers / np.diagonal(self.residual).clip(min=1e-12)[:, None]
        parts = influence[:, : 2 * pairs, None] * surprise[None, : 2 * pairs]
        parts = parts.reshape(len(influence), pairs, 2, -1).sum(axis=2)
        return Estimate(values=influence @ self.answers, errors=np.sqrt(np.square(parts).sum(axis=1)))


def shapley_of_kernel(shown: Shown) -> Floats:
    """Return the Shapley values of the kernel around each coalition, (regions, coalitions).

    The kernel falls by one factor for every region that differs, so over random coalitions, into which each region
    comes with one probability, the mean is a product, and Shapley's mean over all sizes is its integral over that
    probability (Owen 1972, doi:10.1287/mnsc.18.5.64): a polynomial, which the quadrature integrates exactly.
    """
    count = shown.shape[1]
    factor = _factor(count)
    nodes, weights = np.polynomial.legendre.leggauss(count // 2 + 1)
    chance = (nodes + 1) / 2
    ones = np.arange(count)[:, None]
    mean = (chance + (1 - chance) * factor) ** ones * (1 - chance + chance * factor) ** (count - 1 - ones) @ weights / 2
    signs = np.where(shown, 1.0, -1.0)
    values: Floats = (signs * (1 - factor) * mean[_others(shown)]).T
    return values


@dataclass(frozen=True, kw_only=True)
class LimeMeans:
    """Means over all coalitions of a weight by size, times what LIME's regression needs.

    Args:
        weight: of a coalition with 0, 1, ... regions, (regions + 1,).
    """

    weight: Floats

    def gram(self) -> Floats:
        """Return the mean of every product of two columns of the design, regions and then the intercept."""
        count = len(self.weight) - 1
        size = np.arange(count + 1)
        mass = self.weight * np.exp(_log_choose(np.array(count), size) - count * np.log(2))
        one, two = mass @ size / count, mass @ (size * (size - 1)) / (count * max(count - 1, 1))
        gram = np.full((count + 1, count + 1), two)
        np.fill_diagonal(gram, one)
        gram[count, :] = gram[:, count] = one
        gram[count, count] = mass.sum()
        return gram

    def moments(self, shown: Shown) -> Floats:
        """Return the mean of every column times the kernel around each coalition, (regions + 1, coalitions)."""
        factor = _factor(shown.shape[1])
        without, within = self._of_others
        others = _others(shown)
        held, left = within[others], without[others]
        columns = np.where(shown, held, factor * held)
        constant = np.where(shown, held + factor * left, factor * held + left)[:, :1]
        return np.concatenate([columns, constant], axis=1).T

    @cached_property
    def _of_others(self) -> Floats:
        """The kernel's weighted mean over the regions but one, without that one and with it, (2, regions).

        By how many of the others are in the coalition around which the kernel lies.
        """
        count = len(self.weight) - 1
        factor = _factor(count)
        means = np.empty((2, count))
        for ones in range(count):
            kept, added = np.arange(ones + 1)[:, None], np.arange(count - ones)[None, :]
            ways = _log_choose(np.array(ones), kept) + _log_choose(np.array(count - 1 - ones), added)
            mass = np.exp(ways - count * np.log(2)) * factor ** (ones - kept + added)
            size = kept + added
            means[:, ones] = (mass * self.weight[size]).sum(), (mass * self.weight[size + 1]).sum()
        return means


def _factor(count: int) -> float:
    """Return what one differing region leaves of the kernel."""
    return float(np.exp(-2 / (count * LENGTH)))


def _others(shown: Shown) -> NDArray[np.intp]:
    """Return for each region how many of the others are in the coalition, (coalitions, regions)."""
    others: NDArray[np.intp] = shown.sum(axis=1, keepdims=True) - shown.astype(np.intp)
    return others


def _log_choose(total: NDArray[np.intp], chosen: NDArray[np.intp]) -> Floats:
    result: Floats = gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1)
    return result
