"""The figures of parts of the cases: by sex, age, view, manufacturer or site, where the data say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workers.evaluation.figures import auc, auc_interval, confuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from workers.evaluation.figures import Interval

COLUMNS = ("sex", "age", "view", "manufacturer", "site")
FEWEST = 10
"""Cases of each class below which a subgroup's figures say nothing."""
AGE_BANDS = ((0, 18), (18, 40), (40, 65), (65, 200))


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """One value of one column; figures are None where there are too few cases to say."""

    column: str
    value: str
    n: int
    sick: int
    auc: float | None
    auc_interval: Interval | None
    sensitivity: float | None
    specificity: float | None


def by_subgroup(
    groups: Sequence[Mapping[str, str]],
    truth: NDArray[np.int64],
    probability: NDArray[np.float64],
    threshold: float,
) -> tuple[Subgroup, ...]:
    """Return every subgroup of every known column, in order of column and value."""
    return tuple(
        _subgroup(column, value, truth[chosen], probability[chosen], threshold)
        for column, value, chosen in _parts(groups)
    )


def _parts(groups: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    for column in COLUMNS:
        if not groups or any(column not in group for group in groups):
            continue
        values = [_band(group[column]) if column == "age" else group[column].strip() for group in groups]
        for value in sorted(set(values)):
            yield column, value or "not stated", np.array([entry == value for entry in values])


def _subgroup(
    column: str, value: str, truth: NDArray[np.int64], probability: NDArray[np.float64], threshold: float
) -> Subgroup:
    sick = int((truth == 1).sum())
    enough = min(sick, len(truth) - sick) >= FEWEST
    at = confuse(truth, probability, threshold)
    return Subgroup(
        column=column,
        value=value,
        n=len(truth),
        sick=sick,
        auc=auc(truth, probability) if enough else None,
        auc_interval=auc_interval(truth, probability) if enough else None,
        sensitivity=at.sensitivity if enough else None,
        specificity=at.specificity if enough else None,
    )


def _band(age: str) -> str:
    """Return the band of an age in years, as "40-64"; DICOM's "045Y" counts as years too."""
    digits = age.strip().upper().removesuffix("Y")
    if not digits.isdigit():
        return ""
    years = int(digits)
    return next((f"{low}-{high - 1}" for low, high in AGE_BANDS if low <= years < high), "")
