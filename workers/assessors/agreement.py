"""Agreement: do methods that work differently point to the same places?

After Krishna et al. 2022 ("The disagreement problem", arXiv:2202.01602). Methods that agree can still be wrong
together; methods that contradict each other cannot all be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.types import Measure
from workers.assessors.case import Criterion, Scene, Subject, rank_correlation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOP = 0.1
"""Share of the cells that count as a map's top; also what two random maps' tops have in common."""
CONTRADICTION = TOP
"""Two tops that have no more in common than random ones contradict each other."""


class Agreement:
    """The median, over the other methods, of rank correlation and of the overlap of the top 10 %."""

    name = "agreement"
    comparative = True
    criteria: tuple[Criterion, ...] = (
        Criterion(
            measure="agreement-top",
            higher_is_better=True,
            caution=0.2,
            hide=None,
            reason="Most other methods mark other places: the strongest tenth of the map has {value} in common with "
            "theirs ({baseline} by chance).",
            required=False,
        ),
        Criterion(
            measure="agreement-rank",
            higher_is_better=True,
            caution=0.1,
            hide=None,
            reason="Most other methods rank the places otherwise (rank correlation {value}).",
            required=False,
        ),
    )

    def cost(self, subject: Subject) -> int:
        """Return 0: it needs no forward pass."""
        del subject
        return 0

    def assess(self, scene: Scene, subject: Subject, others: Sequence[Subject]) -> tuple[Measure, ...]:
        """Return the two medians, or nothing when there is no other method."""
        del scene
        if not others:
            return ()
        # Some methods have no negative part, and none is drawn: only the positive parts can be compared.
        ranks = [rank_correlation(np.maximum(subject.cells, 0), np.maximum(other.cells, 0)) for other in others]
        tops = [top_overlap(subject.cells, other.cells) for other in others]
        return (
            Measure(
                name="agreement-rank",
                title="Rank correlation with other methods",
                value=float(np.median(ranks)),
                baseline=0.0,
            ),
            Measure(
                name="agreement-top",
                title="Top 10 % shared with other methods",
                value=float(np.median(tops)),
                baseline=TOP,
            ),
        )


def top_overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the share of the highest `TOP` cells of one map that are among those of the other."""
    count = max(1, round(TOP * first.size))
    tops = [set(np.argsort(-values.ravel(), kind="stable")[:count].tolist()) for values in (first, second)]
    return len(tops[0] & tops[1]) / count


def contradictions(subjects: Sequence[Subject], finding: str) -> tuple[str, ...]:
    """Return a sentence for each pair of maps of one finding whose tops have no more in common than by chance."""
    sentences = []
    for index, first in enumerate(subjects):
        for second in subjects[index + 1 :]:
            shared = top_overlap(first.cells, second.cells)
            if shared <= CONTRADICTION:
                sentences.append(
                    f"{first.title} and {second.title} mark different places for {finding}: of the tenth of the image "
                    f"that each marks most, {shared:.0%} is common to both ({TOP:.0%} by chance)."
                )
    return tuple(sentences)
