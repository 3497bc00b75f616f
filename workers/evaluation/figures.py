"""Figures of a classifier with their intervals; pure NumPy, so that anyone can check them by hand.

Every function takes `truth` (n,) of 0 and 1 and `probability` (n,) in [0, 1].
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from service.results import OperatingPoint

    Truth = NDArray[np.int64]
    Values = NDArray[np.float64]

BINS = 15
RESAMPLES = 2000
LEVEL = 0.95
RATES = ("accuracy", "precision", "recall", "f1", "ece", "brier")

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts at one threshold."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def sensitivity(self) -> float:
        """Also called recall; NaN without a positive case."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """NaN without a negative case."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float:
        """NaN when nothing was called positive."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        right = self.true_positive + self.true_negative
        return _ratio(right, right + self.false_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and sensitivity."""
        double = 2 * self.true_positive
        return _ratio(double, double + self.false_positive + self.false_negative)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What `pellucid evaluate` says of one label."""

    n: int
    threshold: float
    confusion: Confusion
    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float
    ece: float
    brier: float
    average_precision: float
    intervals: Mapping[str, Interval]
    """95 % intervals: DeLong's for `auc`, percentile bootstrap for the others."""
    operating_points: Mapping[str, Confusion]


def measure(
    truth: Truth,
    probability: Values,
    *,
    point: OperatingPoint,
    points: Sequence[OperatingPoint],
    seed: int = 0,
) -> Figures:
    """Measure everything; counts and rates are at `point`."""
    confusion = confuse(truth, probability, point.threshold)
    intervals = bootstrap(truth, probability, threshold=point.threshold, seed=seed)
    return Figures(
        n=len(truth),
        threshold=point.threshold,
        confusion=confusion,
        accuracy=confusion.accuracy,
        precision=confusion.precision,
        recall=confusion.sensitivity,
        f1=confusion.f1,
        auc=auc(truth, probability),
        ece=calibration_error(truth, probability),
        brier=brier(truth, probability),
        average_precision=average_precision(truth, probability),
        intervals={**intervals, "auc": auc_interval(truth, probability)},
        operating_points={p.name: confuse(truth, probability, p.threshold) for p in points},
    )


def confuse(truth: Truth, probability: Values, threshold: float) -> Confusion:
    """Count at or above `threshold` as positive."""
    called = probability >= threshold
    sick = truth == 1
    return Confusion(
        true_positive=int((called & sick).sum()),
        false_positive=int((called & ~sick).sum()),
        true_negative=int((~called & ~sick).sum()),
        false_negative=int((~called & sick).sum()),
    )


def auc(truth: Truth, probability: Values) -> float:
    """Return the area under the ROC curve: how often a sick case ranks above a well one (ties: half)."""
    sick = int((truth == 1).sum())
    well = len(truth) - sick
    if sick == 0 or well == 0:
        return float("nan")
    ranks = stats.rankdata(probability)
    return float((ranks[truth == 1].sum() - sick * (sick + 1) / 2) / (sick * well))


def auc_interval(truth: Truth, probability: Values) -> Interval:
    """Return DeLong's 95 % interval (DeLong et al. 1988) on the logit scale.

    By mid-ranks (Sun and Xu 2014, doi:10.1109/LSP.2014.2337313). The logit scale keeps it inside [0, 1]; an area of
    exactly 0 or 1 gets the interval [area, area].
    """
    area = auc(truth, probability)
    sick, well = probability[truth == 1], probability[truth == 0]
    if not 0 < area < 1 or min(len(sick), len(well)) < 2:  # noqa: PLR2004 - a variance needs two
        return area, area
    everyone = stats.rankdata(np.concatenate([sick, well]))
    above = (everyone[: len(sick)] - stats.rankdata(sick)) / len(well)
    below = 1 - (everyone[len(sick) :] - stats.rankdata(well)) / len(sick)
    deviation = float(np.sqrt(above.var(ddof=1) / len(sick) + below.var(ddof=1) / len(well)))
    reach = float(stats.norm.ppf(0.5 + LEVEL / 2)) * deviation / (area * (1 - area))
    centre = float(np.log(area / (1 - area)))
    low, high = 1 / (1 + np.exp(-(centre - reach))), 1 / (1 + np.exp(-(centre + reach)))
    return float(low), float(high)


def brier(truth: Truth, probability: Values) -> float:
    """Return the mean squared error of the probability (Brier 1950)."""
    return float(np.mean((probability - truth) ** 2))


def calibration_error(truth: Truth, probability: Values, bins: int = BINS) -> float:
    """Return the expected calibration error over equal-width bins (Guo et al. 2017, arXiv:1706.04599)."""
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    surplus = np.bincount(place, weights=probability - truth, minlength=bins)
    return float(np.abs(surplus).sum() / max(int(count.sum()), 1))


def roc(truth: Truth, probability: Values) -> list[tuple[float, float]]:
    """Return the ROC curve as (1 - specificity, sensitivity), from (0, 0) to (1, 1)."""
    order = np.argsort(-probability, kind="stable")
    sick = truth[order] == 1
    last = np.append(np.flatnonzero(np.diff(probability[order])), len(truth) - 1)
    hits, alarms = np.cumsum(sick)[last], np.cumsum(~sick)[last]
    across, up = alarms / max(int((~sick).sum()), 1), hits / max(int(sick.sum()), 1)
    return [(0.0, 0.0), *zip(across.tolist(), up.tolist(), strict=True)]


def precision_recall(truth: Truth, probability: Values) -> list[tuple[float, float]]:
    """Return the precision-recall curve as (sensitivity, precision), from the highest threshold to the lowest."""
    order = np.argsort(-probability, kind="stable")
    sick = truth[order] == 1
    last = np.append(np.flatnonzero(np.diff(probability[order])), len(truth) - 1)
    hits, called = np.cumsum(sick)[last], last + 1
    across, up = hits / max(int(sick.sum()), 1), hits / called
    return list(zip(across.tolist(), up.tolist(), strict=True))


def average_precision(truth: Truth, probability: Values) -> float:
    """Return the area under the precision-recall curve as a step function; NaN without a positive case."""
    if not (truth == 1).any():
        return float("nan")
    points = [(0.0, 1.0), *precision_recall(truth, probability)]
    return float(sum((b[0] - a[0]) * b[1] for a, b in itertools.pairwise(points)))


def reliability(truth: Truth, probability: Values, bins: int = BINS) -> list[tuple[float, float]]:
    """Return (mean probability, share with the finding) of every bin that holds a case."""
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    mean = np.bincount(place, weights=probability, minlength=bins)[filled] / count[filled]
    share = np.bincount(place, weights=truth, minlength=bins)[filled] / count[filled]
    return list(zip(mean.tolist(), share.tolist(), strict=True))


def bootstrap(truth: Truth, probability: Values, *, threshold: float, seed: int) -> dict[str, Interval]:
    """Return percentile intervals from resampled cases, the two classes apart so that neither runs out."""
    rng = np.random.default_rng(seed)
    sick, well = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    samples: dict[str, list[float]] = {name: [] for name in RATES}
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in (sick, well) if len(group)])
        at = confuse(truth[drawn], probability[drawn], threshold)
        samples["accuracy"].append(at.accuracy)
        samples["precision"].append(at.precision)
        samples["recall"].append(at.sensitivity)
        samples["f1"].append(at.f1)
        samples["ece"].append(calibration_error(truth[drawn], probability[drawn]))
        samples["brier"].append(brier(truth[drawn], probability[drawn]))
    return {name: _percentiles(values) for name, values in samples.items()}


def _percentiles(values: list[float]) -> Interval:
    finite = np.array(values)[np.isfinite(values)]
    if finite.size == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
