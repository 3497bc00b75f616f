"""Agreement: do methods that work differently point to the same places?

After Krishna et al. 2022 ("The disagreement problem", arXiv:2202.01602). Methods that agree can still be wrong
together; methods that contradict each other cannot all be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.results import Measure
from workers.assessors.case import SERIES, Criterion, Scene, Subject, rank_correlation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOP = 0.1
"""Share of the cells that count as a map's top; also what two random maps' tops have in common."""
DRAWN = 0.25
"""Share of a map's maximum below which nothing is coloured."""
CONTRADICTION = TOP
"""Two tops that have no more in common than random ones contradict each other."""


class Agreement:
    """The median, over the other methods, of rank correlation and of the overlap of what is marked most."""

    name = "agreement"
    comparative = True
    criteria: tuple[Criterion, ...] = (
        Criterion(
            measure="agreement-top",
            higher_is_better=True,
            caution=0.2,
            hide=None,
            reason="Most other methods mark other places: what the map marks most has {value} in common with theirs "
            "(at most {baseline} by chance).",
            required=False,
            senseless="Agreement with other methods is not measured: there is none beside this map.",
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

    def cost(self, scene: Scene, subject: Subject) -> int:
        """Return 0: it needs no forward pass."""
        del scene, subject
        return 0

    def assess(self, scene: Scene, subject: Subject, others: Sequence[Subject]) -> tuple[Measure, ...]:
        """Return the two medians, or nothing when there is no other method."""
        if not others:
            return ()
        own, theirs = within(scene, subject), [within(scene, other) for other in others]
        ranks = [rank_correlation(_drawn(own), _drawn(other)) for other in theirs]
        tops = [top_overlap(own, other) for other in theirs]
        return (
            Measure(
                name="agreement-rank",
                title="Rank correlation with other methods",
                value=float(np.median(ranks)),
                baseline=0.0,
            ),
            Measure(
                name="agreement-top",
                title="Share of the strongest places that other methods mark too",
                value=float(np.median(tops)),
                baseline=TOP,
            ),
        )


def within(scene: Scene, subject: Subject) -> NDArray[np.float32]:
    """Return a map's values on the cells that are compared: places in the air around a head have nothing to say."""
    cells = subject.drawn_cells if scene.kind in SERIES else subject.cells
    return cells[scene.patient_cells]


def top_overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the share of the smaller map's top that is in the other's top.

    Only what is drawn is marked: a class activation map has few such cells, and the order of all the others says
    nothing to who looks at it. Two random maps share `TOP` at most.
    """
    tops = [_top(first), _top(second)]
    smaller = min(len(top) for top in tops)
    return len(tops[0] & tops[1]) / smaller if smaller else 0.0


def _top(values: NDArray[np.float32]) -> set[int]:
    """Return the highest `TOP` of the cells, as far as they are drawn."""
    cells = _drawn(values).ravel()
    highest = np.argsort(-cells, kind="stable")[: max(1, round(TOP * cells.size))]
    return {int(cell) for cell in highest if cells[cell] > 0}


def _drawn(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map with 0 where it is not drawn; the order of those places, noise mostly, is nobody's business."""
    return np.where(values >= DRAWN * max(float(values.max()), 0.0), np.maximum(values, 0), 0).astype(np.float32)


def contradictions(scene: Scene, subjects: Sequence[Subject], finding: str) -> tuple[str, ...]:
    """Return sentences that name all pairs of maps of one finding whose tops have no more in common than by chance.

    Methods that contradict the same ones share a sentence: of twenty methods hundreds of pairs may, which nobody reads.
    """
    cells = [within(scene, subject) for subject in subjects]
    shared = {(i, j): top_overlap(cells[i], cells[j]) for i in range(len(cells)) for j in range(i)}
    apart = {pair: share for pair, share in shared.items() if share <= CONTRADICTION}
    apart |= {(j, i): share for (i, j), share in apart.items()}
    sentences, left = [], set(apart)
    while left:
        # The one with most to say speaks first; at a tie the one that comes first.
        first = max(range(len(cells)), key=lambda i: (sum(pair[0] == i for pair in left), -i))
        others = [j for j in range(len(cells)) if (first, j) in left]
        alike = [
            i for i in range(len(cells)) if all((i, j) in apart for j in others) and any((i, j) in left for j in others)
        ]
        told = {(i, j) for i in alike for j in others}
        names = [subject.title for subject in subjects]
        who = _told_apart([names[i] for i in alike], [names[j] for j in others], finding)
        most = f"{max(apart[pair] for pair in told):.0%} is common to both (at most {TOP:.0%} by chance)."
        sentences.append(f"{who} {most}")
        left -= told | {(j, i) for i, j in told}
    return tuple(sentences)


def _told_apart(first: Sequence[str], second: Sequence[str], finding: str) -> str:
    names = [" and ".join(filter(None, (", ".join(group[:-1]), group[-1]))) for group in (first, second)]
    if len(first) == len(second) == 1:
        return f"{names[0]} and {names[1]} mark different places for {finding}: of what each marks most,"
    mark = "marks" if len(first) == 1 else "mark"
    return f"{names[0]} {mark} other places for {finding} than {names[1]}: of what two of them mark most, at most"
