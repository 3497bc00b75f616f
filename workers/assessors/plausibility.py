"""Plausibility: does the map lie where the finding can be - in the body, in the lungs - or on borders and letters?

A plausible map is no proof that the model is right; an implausible one shows that it looked at something else, as
networks do that learned a hospital's side markers (Zech et al. 2018, arXiv:1807.00431; DeGrave et al. 2021,
doi:10.1038/s42256-021-00338-7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from service.results import Measure
from workers.assessors.case import FILMS, SERIES, Criterion, Scene, Subject
from workers.assessors.regions import BORDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

INTRACRANIAL = "intracranial"
"""`Label.target` of findings inside the skull."""
CELL = 1.0
"""A map smears what it marks over its own cells: letters and lungs are widened by so many of them."""
WIDEST = 0.08
"""But by no more than this share of the film's side."""


class Plausibility:
    """Shares of the map's positive sum inside each region, beside the share of the film that the region covers."""

    name = "plausibility"
    comparative = False
    criteria: tuple[Criterion, ...] = (
        Criterion(
            measure="energy-lungs",
            higher_is_better=True,
            caution=0.75,
            hide=0.55,
            of_anatomy=True,
            reason="Only {value} of the map lies on the lungs as far as they could be outlined ({baseline} by chance).",
            kinds=FILMS,
            senseless="Map inside the lungs is not measured: lungs are outlined on chest radiographs alone.",
        ),
        Criterion(
            measure="energy-body",
            higher_is_better=True,
            caution=0.85,
            hide=0.7,
            of_anatomy=True,
            reason="Only {value} of the map lies on the patient.",
        ),
        Criterion(
            measure="energy-border",
            higher_is_better=False,
            caution=0.19,
            hide=0.38,
            of_anatomy=True,
            reason="{value} of the map lies on the image's border.",
            chance=1 - (1 - 2 * BORDER) ** 2,
        ),
        Criterion(
            measure="energy-text",
            higher_is_better=False,
            caution=0.1,
            hide=0.2,
            of_anatomy=True,
            reason="{value} of the map lies on burned-in text or side markers: the model may have read them instead "
            "of the lungs.",
            kinds=FILMS,
            senseless="Map on text and markers is not measured: letters are looked for on chest radiographs alone.",
        ),
        Criterion(
            measure="energy-unscanned",
            higher_is_better=False,
            caution=0.05,
            hide=0.2,
            of_anatomy=True,
            reason="{value} of the map lies where the scanner measured nothing.",
            kinds=SERIES,
        ),
        Criterion(
            measure="energy-intracranial",
            higher_is_better=True,
            caution=0.75,
            hide=0.5,
            of_anatomy=True,
            reason="Only {value} of the map lies inside the skull ({baseline} by chance), where the finding would be.",
            unmeasured="Whether the map lies inside the skull could not be measured: no skull was found.",
            kinds=SERIES,
            target=INTRACRANIAL,
        ),
    )

    def cost(self, scene: Scene, subject: Subject) -> int:
        """Return 0: the regions are found once per image, without the classifier."""
        del scene, subject
        return 0

    def assess(self, scene: Scene, subject: Subject, others: Sequence[Subject]) -> tuple[Measure, ...]:
        """Return the shares; nothing where the anatomy is unknown, and no lungs' share where none were found."""
        del others
        regions = scene.regions
        if regions is None:
            return ()
        heat = np.maximum(subject.on_grid(*scene.grid), 0)
        reach = smear(subject.map.shape, scene.grid)
        shares: list[tuple[str, str, NDArray[np.bool_] | None]] = [
            ("energy-body", "Map inside the body", regions.body),
            ("energy-lungs", "Map inside the lungs", _widened(regions.lungs, reach // 2)),
            ("energy-border", "Map on the border", regions.border),
            ("energy-text", "Map on text and markers", _widened(regions.text, reach)),
            ("energy-unscanned", "Map where the scanner measured nothing", regions.unscanned),
        ]
        if scene.classifier.card.labels[subject.label].target == INTRACRANIAL:
            inside = _widened(regions.intracranial, reach // 2)
            shares.append(("energy-intracranial", "Map inside the skull", inside))
        return tuple(_share(name, title, heat, region) for name, title, region in shares if region is not None)


def smear(shape: tuple[int, ...], grid: tuple[int, ...]) -> int:
    """Return how far, in pixels of `grid`, a map of this shape smears what it marks."""
    cell = max(size / cells for size, cells in zip(grid, shape, strict=True))
    return int(min(CELL * cell, WIDEST * min(grid))) if cell > 1 else 0


def _widened(mask: NDArray[np.bool_] | None, reach: int) -> NDArray[np.bool_] | None:
    return None if mask is None else widen(mask, reach)


def widen(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return the mask grown by `reach` pixels."""
    if reach <= 0 or not mask.any():
        return mask
    grown: NDArray[np.bool_] = ndimage.distance_transform_cdt(~mask, metric="chessboard") <= reach
    return grown


def _share(name: str, title: str, heat: NDArray[np.float32], region: NDArray[np.bool_]) -> Measure:
    total = float(heat.sum(dtype=np.float64))
    inside = float(heat[region].sum(dtype=np.float64))
    return Measure(name=name, title=title, value=inside / total if total > 0 else 0.0, baseline=float(region.mean()))
