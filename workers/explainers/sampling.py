"""Draws coalitions of regions in pairs, and tells when their values are known well enough.

A coalition and its complement are always asked together: what regions do in twos (and in any even number) then
cancels, so far fewer questions give the same certainty (Covert and Lee 2021, arXiv:2012.01536).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import hadamard
from scipy.special import gammaln

from service.results import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Shown = NDArray[np.bool_]

Z_95 = 1.96
SPARE = 8
"""Pairs beyond the unknowns before a variance is believed."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Values of regions (or places), with what is not known about them."""

    values: Floats
    """(regions, labels), logits."""
    errors: Floats
    """Standard errors by the sampling variance, same shape; 0 where exact, infinite before they are known."""

    def stability(self) -> float:
        """Return how an independent repeat of the same size would correlate with this one, for the worst label.

        That is the reliability of classical test theory: the share of the values' variance that is no error
        (Lord and Novick 1968). 1 when every value is exact.
        """
        if not np.isfinite(self.errors).all():
            return 0.0
        spread = self.values.var(axis=0, ddof=1) if len(self.values) > 1 else np.zeros(self.values.shape[1])
        noise = np.square(self.errors).mean(axis=0)
        known = np.divide(spread - noise, spread, out=np.where(noise > 0, 0.0, 1.0), where=spread > 0)
        return float(np.clip(known, 0.0, 1.0).min())

    def measures(self, column: int, samples: int) -> tuple[Measure, ...]:
        """Return what one label's values say of themselves."""
        one = Estimate(values=self.values[:, [column]], errors=self.errors[:, [column]])
        half_width = float(Z_95 * one.errors.mean())
        return (
            Measure(name="samples", title="Forward passes", value=float(samples), unit="{count}"),
            Measure(
                name="interval",
                title="95 % interval of a value, mean half-width",
                # Infinite when sampling ended before a variance was known: no number, so the widest that is seen.
                value=half_width if np.isfinite(half_width) else float(np.ptp(one.values)),
                unit="{logit}",
            ),
            Measure(name="ranking-stability", title="Correlation expected of a repeat", value=one.stability()),
        )


def every_coalition(regions: int) -> Shown:
    """Return all coalitions, bool (2 ** regions, regions); row i holds the bits of i."""
    inside: Shown = (np.arange(2**regions)[:, None] >> np.arange(regions)) & 1 == 1
    return inside


def balanced_halves(regions: int, rng: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    """Yield coalitions of about half the regions, each region in half of them and any two together in a quarter.

    Rows of a Hadamard matrix with its columns drawn and signed at random (Plackett and Burman 1946,
    doi:10.1093/biomet/33.4.305): every row alone is uniform on all coalitions, as LIME draws them, but a block of
    rows tells the regions apart with the least variance there can be.
    """
    order = 1 << int(regions).bit_length()
    square = hadamard(order) > 0
    while True:
        columns = rng.permutation(np.arange(1, order))[:regions]
        signs = rng.random(regions) < 0.5  # noqa: PLR2004 - a coin
        block = square[:, columns] ^ signs
        yield from block[rng.permutation(order)]


def leveraged(regions: int, rng: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    """Yield coalitions of 1 to regions / 2 regions, all sizes (counting a size and its complement's) equally often.

    That is sampling by leverage for the regression that defines Shapley values (Musco and Witter 2025,
    arXiv:2410.01917). Sizes run through a low-discrepancy sequence and members are dealt from a shuffled deck, so
    that no size and no region is left out by chance.
    """
    sizes = np.arange(1, regions // 2 + 1)
    shares = np.cumsum(pair_shares(regions, sizes))
    deck: list[int] = []
    turn = float(rng.random())
    while True:
        turn = (turn + (5**0.5 - 1) / 2) % 1.0
        size = int(sizes[min(int(np.searchsorted(shares, turn, side="right")), len(sizes) - 1)])
        shown = np.zeros(regions, dtype=bool)
        while size:
            if not deck:
                deck = [int(card) for card in rng.permutation(np.flatnonzero(~shown))]
            shown[deck.pop()] = True
            size -= 1
        yield shown


def pair_shares(regions: int, sizes: NDArray[np.intp]) -> Floats:
    """Return how often `leveraged` draws each size: half as often where a size is its own complement's."""
    return np.where(2 * sizes == regions, 1.0, 2.0) / (regions - 1)


def half_shares(regions: int, sizes: NDArray[np.intp]) -> Floats:
    """Return how often `balanced_halves` draws each size or its complement's: as uniform coalitions do."""
    pairs = np.where(2 * sizes == regions, 1.0, 2.0)
    shares: Floats = pairs * np.exp(gammaln(regions + 1) - gammaln(sizes + 1) - gammaln(regions - sizes + 1))
    return shares * 0.5**regions


def take(coalitions: Iterator[NDArray[np.bool_]], count: int) -> Shown:
    """Return the next coalitions, bool (count, regions)."""
    return np.stack([next(coalitions) for _ in range(count)])
