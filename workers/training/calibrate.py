"""Turns logits into probabilities and probabilities into decisions, on validation films alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from service.results import OperatingPoint
from workers.evaluation.figures import confuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Truth = NDArray[np.int64]
    Values = NDArray[np.float64]

SCREENING_SENSITIVITY = 0.98
RULE_IN_SPECIFICITY = 0.98


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """probability = sigmoid(logit / temperature + bias)."""

    temperature: float
    bias: float

    def probability(self, logits: Values) -> Values:
        """Return probabilities of the same shape."""
        values: Values = 1.0 / (1.0 + np.exp(-np.clip(logits / self.temperature + self.bias, -60.0, 60.0)))
        return values


def calibrate(logits: Values, truth: Truth) -> Calibration:
    """Fit temperature and bias by likelihood, both classes weighing the same.

    Platt 1999 with the temperature of Guo et al. 2017 (arXiv:1706.04599). The classes weigh the same
    because the share of the sick among the films of a teaching set says nothing about the share in a
    hospital.
    """
    sick = int((truth == 1).sum())
    weight = np.where(truth == 1, 0.5 / max(sick, 1), 0.5 / max(len(truth) - sick, 1))
    sign = np.where(truth == 1, -1.0, 1.0)

    def loss(parameters: Values) -> float:
        shifted = logits * np.exp(-parameters[0]) + parameters[1]
        # The small pull towards 1 and 0 keeps separable data from running to infinity.
        return float((weight * np.logaddexp(0.0, sign * shifted)).sum() + 1e-3 * (parameters**2).sum())

    found = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    return Calibration(temperature=float(np.exp(found.x[0])), bias=float(found.x[1]))


def choose_points(truth: Truth, probability: Values) -> tuple[OperatingPoint, ...]:
    """Choose `screening`, `balanced` and `rule-in` thresholds.

    `screening` is the highest threshold with a sensitivity of at least `SCREENING_SENSITIVITY`, `rule-in`
    the lowest with a specificity of at least `RULE_IN_SPECIFICITY`, `balanced` has the best mean of both. A
    threshold lies midway between two neighbouring cases, and of equally good ones it is the middle.
    """
    ordered = np.unique(probability)
    cuts = np.concatenate([[0.0], (ordered[1:] + ordered[:-1]) / 2, [1.0]])
    rates = [confuse(truth, probability, float(cut)) for cut in cuts]
    sensitivity = np.array([rate.sensitivity for rate in rates])
    specificity = np.array([rate.specificity for rate in rates])
    mean = sensitivity + specificity
    best = np.flatnonzero(mean >= mean.max() - 1e-9)
    chosen = {
        "screening": int(np.flatnonzero(sensitivity >= SCREENING_SENSITIVITY).max()),
        "balanced": int(best[len(best) // 2]),
        "rule-in": int(np.flatnonzero(specificity >= RULE_IN_SPECIFICITY).min()),
    }
    return tuple(
        OperatingPoint(
            name=name,
            threshold=round(float(cuts[index]), 6),
            sensitivity=round(float(sensitivity[index]), 4),
            specificity=round(float(specificity[index]), 4),
        )
        for name, index in chosen.items()
    )
