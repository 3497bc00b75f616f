"""Stability: does the map stay when nothing that matters changes - a little noise, a turn, a shift?

The turned and shifted input is explained anew and the new map is moved back before the two are compared, so a map
that follows the anatomy counts as unchanged. After Alvarez-Melis & Jaakkola 2018 (arXiv:1806.08049), with the
changes that radiographers make. A volume is turned and shifted within the plane of its slices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from service.results import Measure
from workers.assessors.case import Criterion, Scene, Subject, correlation, on_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

NOISE = 0.05
"""Standard deviation of the noise as a share of the input's own."""
TURN = math.radians(2)
SHIFT = 0.02
"""Of the film's side, to the right and downwards; one pixel where that is less than one, as in a coarse volume."""
FINE = 28
"""Rows and columns of the grid on which maps are compared; in a volume also slices, at most."""
EDGE = 2
"""Cells along each side that are left out: what was moved in from beyond the film."""
_REASON = "The map changes when {change} (similarity {{value}})."


def _criterion(measure: str, change: str, caution: float, hide: float) -> Criterion:
    reason = _REASON.format(change=change)
    return Criterion(measure=measure, higher_is_better=True, caution=caution, hide=hide, reason=reason)


class Stability:
    """Correlation of the positive parts of the map before and after each small change; 1 is unchanged."""

    name = "stability"
    comparative = False
    criteria: tuple[Criterion, ...] = (
        _criterion("stability-noise", "a little noise is added", 0.75, 0.5),
        _criterion("stability-turn", "the image is turned by 2 degrees", 0.7, 0.48),
        _criterion("stability-shift", "the image is shifted by 2 %", 0.5, 0.33),
    )

    def cost(self, scene: Scene, subject: Subject) -> int:
        """Return three times the method's own cost."""
        del scene
        return 3 * subject.explainer.cost if subject.explainer else 0

    def assess(self, scene: Scene, subject: Subject, others: Sequence[Subject]) -> tuple[Measure, ...]:
        """Return one similarity in [-1, 1] for each change; nothing for a map that no single method made."""
        del others
        if subject.explainer is None:
            return ()
        fine = (*(min(slices, FINE) for slices in scene.grid[:-2]), FINE, FINE)
        before = subject.on_grid(*fine)
        shares = tuple(max(SHIFT, 1 / side) for side in scene.grid[-2:])
        turn, shift = _turned(TURN), _shifted(*shares)
        changes = (
            ("stability-noise", "Similarity under noise", _noisy(scene.batch, scene.seed), None),
            ("stability-turn", "Similarity under a 2 degree turn", _move(scene.batch, turn), _turned(-TURN)),
            (
                "stability-shift",
                "Similarity under a 2 % shift",
                _move(scene.batch, shift),
                _shifted(*(-share for share in shares)),
            ),
        )
        measures = []
        for name, title, batch, back in changes:
            (again,) = subject.explainer.explain(scene.classifier, batch, [subject.label])
            after = again.map if back is None else _move_map(again.map, back, scene.grid)
            similarity = correlation(_inner(before), _inner(on_grid(after, *fine)))
            measures.append(Measure(name=name, title=title, value=similarity))
        return tuple(measures)


def _inner(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[..., EDGE:-EDGE, EDGE:-EDGE]


def _noisy(batch: torch.Tensor, seed: int) -> torch.Tensor:
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(seed))
    return batch + NOISE * batch.std() * noise.to(batch)


def _turned(angle: float) -> torch.Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])


def _shifted(down: float, across: float) -> torch.Tensor:
    # Coordinates run from -1 to 1, so a share of the side is twice that.
    return torch.tensor([[1.0, 0.0, -2 * across], [0.0, 1.0, -2 * down]])


def _move(batch: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Move (1, channels, ..., rows, columns) in the plane: the slices of a volume are so many channels to it."""
    planes = batch.flatten(1, -3)
    grid = F.affine_grid(matrix[None].to(planes), list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="border", align_corners=False).reshape(batch.shape)


def _move_map(values: torch.Tensor, matrix: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
    """Move a map on a fine grid, where a fraction of a coarse cell still counts."""
    fine = torch.from_numpy(on_grid(values, *grid))[None, None]
    return _move(fine, matrix)[0, 0]
