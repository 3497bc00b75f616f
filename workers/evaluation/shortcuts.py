"""Whether a model reads what it should not: text on the film, or anything else outside the lungs.

A text label that is burned into a film must not change the answer, and the explanation of a finding of the lungs
should lie in the lungs (Zech et al. 2018, arXiv:1807.00431, on networks that read the hospital's marker instead). Nor
is a breast in front of the lungs a finding: a network that saw children alone may take it for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """How far a burned-in text label moves the probability, over `n` images; both in [0, 1]."""

    n: int
    mean: float
    p95: float


@dataclass(frozen=True, kw_only=True)
class BreastShadows:
    """Share of `n` films without the finding that are called positive: as they are, and under drawn breast shadows."""

    n: int
    called_positive: float
    under_shadows: float


@dataclass(frozen=True, kw_only=True)
class LungEnergy:
    """Mean share of an explanation's positive sum in the lung estimate, over `n` images with the finding."""

    n: int
    mean: float


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """What a test of shortcuts found."""

    label_change: LabelChange | None
    """None where the model does not read grey values, which the label is drawn in."""
    breast_shadows: BreastShadows | None
    """None likewise, and where there are no such films or no lungs were found on them."""
    lung_energy: Mapping[str, LungEnergy]
    """By explainer; empty where no lungs were found."""


def find_shortcuts(
    changes: Sequence[float],
    energies: Sequence[Mapping[str, float]],
    shadowed: Sequence[tuple[float, float]] = (),
    threshold: float = 0.5,
) -> Shortcuts:
    """Summarise what was seen of single images.

    Args:
        changes: of the probability by a burned-in label.
        energies: shares in the lungs by explainer.
        shadowed: probabilities of clear films, as they are and under breast shadows.
        threshold: from which probability on a film is called positive.
    """
    size = np.abs(np.asarray(changes, dtype=np.float64))
    names = next((one.keys() for one in energies if one), ())
    found = {name: [one[name] for one in energies if name in one] for name in names}
    return Shortcuts(
        label_change=LabelChange(n=len(size), mean=float(size.mean()), p95=float(np.quantile(size, 0.95)))
        if len(size)
        else None,
        breast_shadows=_shadows(np.asarray(shadowed, dtype=np.float64) >= threshold) if len(shadowed) else None,
        lung_energy={name: LungEnergy(n=len(shares), mean=float(np.mean(shares))) for name, shares in found.items()},
    )


def _shadows(positive: NDArray[np.bool_]) -> BreastShadows:
    before, after = positive.mean(axis=0)
    return BreastShadows(n=len(positive), called_positive=float(before), under_shadows=float(after))


def energy(values: NDArray[np.float32], inside: NDArray[np.float32]) -> float:
    """Return the share of a map's positive sum that lies `inside` (weights in [0, 1], same shape); 0 if it has none."""
    positive = np.maximum(values, 0)
    total = float(positive.sum(dtype=np.float64))
    return float((positive * inside).sum(dtype=np.float64)) / total if total > 0 else 0.0
