"""Integrated Gradients, with as many steps as the image needs and the error that is left."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from service.results import Measure
from workers.explainers.baselines import BASELINES, baseline
from workers.explainers.bounds import choice, real, whole
from workers.explainers.copies import PRECISIONS
from workers.explainers.gradients import BACKWARD, on_places
from workers.explainers.passes import Gradients
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.interfaces import Classifier

FIRST = 8
"""Intervals of the path before the first look at the error."""
ROUND = 8
"""Intervals that are halved between looks."""
ALIKE = 0.95
"""Correlation, on a grid of `CELLS` along each side, of the map with that of every other point."""
CELLS = 28
FLAT = 1e-6
"""Slopes that differ by less than this share are one."""
TRIAL = 33
"""Points after which bfloat16 has had its chance and float32 begins anew."""


@dataclass(frozen=True, kw_only=True)
class _Point:
    """What is known of one place on the path."""

    logits: torch.Tensor
    """Float64 (labels)."""
    gradients: torch.Tensor
    """Float32 (labels, channels, ...)."""
    slope: torch.Tensor
    """Float64 (labels): of the logits along the path."""


@dataclass(kw_only=True)
class _Path:
    """The straight way from the baseline to the image, looked at where the logits bend."""

    image: torch.Tensor
    baseline: torch.Tensor
    labels: Sequence[int]
    gradients: Gradients
    points: dict[float, _Point] = field(default_factory=dict)

    @property
    def difference(self) -> torch.Tensor:
        return self.image - self.baseline

    def look(self, places: Sequence[float]) -> None:
        """Ask the network at places in [0, 1]."""
        shares = torch.tensor(places, dtype=torch.float32).reshape(-1, *[1] * (self.image.ndim - 1))
        inputs = self.baseline + shares * self.difference
        for where, logits, gradients in self.gradients(inputs, self.labels):
            for index in range(where.stop - where.start):
                found = gradients[:, index]
                self.points[places[where.start + index]] = _Point(
                    logits=logits[:, index].double(),
                    gradients=found,
                    slope=(found.double() * self.difference[0]).flatten(1).sum(dim=1),
                )

    def errors(self) -> dict[tuple[float, float], torch.Tensor]:
        """Return what the trapezoid misses on each interval, float64 (labels): the logits at both ends tell."""
        return {
            (start, end): self._rise(start, end)
            - (end - start) * (self.points[start].slope + self.points[end].slope) / 2
            for start, end in pairwise(sorted(self.points))
        }

    def attributions(self, every: int = 1) -> torch.Tensor:
        """Return the integral times the difference, float32 (labels, channels, ...), from every so many points.

        A network of ReLUs is linear between the places where it bends. Where it bends once between two points, the
        gradient is the first one's up to there and the second one's from there on, and the logits tell where.
        """
        total = torch.zeros(len(self.labels), *self.image.shape[1:])
        *places, last_place = sorted(self.points)
        for start, end in pairwise([*places[::every], last_place]):
            first, last = self.points[start], self.points[end]
            bend = _bend(first.slope, last.slope, self._rise(start, end) / (end - start)).float()
            share = bend.reshape(-1, *[1] * (self.image.ndim - 1))
            total += (end - start) * (share * first.gradients + (1 - share) * last.gradients)
        return total * self.difference[0]

    def _rise(self, start: float, end: float) -> torch.Tensor:
        return self.points[end].logits - self.points[start].logits


class IntegratedGradients:
    """Gradients along the straight path from a baseline, times the difference: what each pixel contributes.

    Source: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", arXiv:1703.01365. In logits;
    the map sums to the logit less the baseline's (completeness), and the error of that sum is reported.

    The quadrature follows the bends. Gradients jump where the logit bends, so rules for smooth functions
    (Gauss-Legendre) gain nothing; the logits at both ends of an interval say where it bends in between, and what the
    trapezoid misses there. The intervals that miss most are halved until the map changes no more.

    Args:
        baseline: `dark`, `zero`, `black`, `blur` or `mean`; see `workers.explainers.baselines`. What is zero in a
            standardised film is mean grey, brighter than a lung: maps against it are hardly better than chance.
        tolerance: stop when the error of the sum is no more than this share of it, and the map of every other point
            is the same but for `ALIKE`; 0 takes all the steps.
        steps: at most so many points on the path.
        precision: `auto`, `float32` or `bfloat16`; `auto` takes the fastest that ranks places as float32 does, and
            float32 where the other misses the tolerance.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "integrated-gradients"
    title = "Integrated Gradients"

    def __init__(
        self, *, baseline: str = "dark", tolerance: float = 0.01, steps: int = 129, precision: str = "auto"
    ) -> None:
        self._baseline = choice("baseline", baseline, BASELINES)
        self._tolerance = real("tolerance", tolerance, 0.0, 1.0)
        self._steps = whole("steps", steps, FIRST + 1, 10_000)
        self.cost = BACKWARD * min(steps, TRIAL)
        self._precision = choice("precision", precision, PRECISIONS)

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain all labels from the same points on the path.

        Raises:
            UnsupportedMethodError: the model gives no gradients, or there is no memory.
        """
        begun = time.perf_counter()
        gradients = Gradients(classifier, batch.shape[1:], self._precision)
        start = baseline(batch, self._baseline).detach().cpu()
        image = batch.detach().cpu()
        ends = gradients.exact_logits(torch.cat([start, image]))[:, list(labels)]
        change = ends[1] - ends[0]
        # Without a tolerance the steps are a wish, not an attempt that could fail.
        trial = self._precision == "auto" and gradients.dtype != torch.float32 and self._tolerance > 0
        path = _Path(image=image, baseline=start, labels=labels, gradients=gradients)
        self._walk(path, change, min(self._steps, TRIAL) if trial else self._steps)
        if trial and not self._met(path, change):
            path = dataclasses.replace(path, gradients=Gradients(classifier, batch.shape[1:], "float32"), points={})
            self._walk(path, change, self._steps)
        return self._explanations(path, change, time.perf_counter() - begun)

    def _walk(self, path: _Path, change: torch.Tensor, most: int) -> None:
        path.look([index / FIRST for index in range(FIRST + 1)])
        while (left := most - len(path.points)) > 0 and not self._settled(path, change):
            errors = path.errors()
            worst = sorted(errors, key=lambda ends: float(-(errors[ends] / _scale(change)).abs().amax()))
            path.look([(first + last) / 2 for first, last in worst[: min(left, ROUND)]])

    def _settled(self, path: _Path, change: torch.Tensor) -> bool:
        """Tell whether the sum is right and the map stays as it is."""
        if self._tolerance == 0 or not self._met(path, change):
            return False
        return _likeness(path.attributions(every=2), path.attributions()) >= ALIKE

    def _met(self, path: _Path, change: torch.Tensor) -> bool:
        return bool((_deltas(path.attributions(), change) <= self._tolerance).all())

    def _explanations(self, path: _Path, change: torch.Tensor, seconds: float) -> list[Explanation]:
        attributions = path.attributions()
        deltas = _deltas(attributions, change)
        parameters = {
            "baseline": self._baseline,
            "tolerance": f"{self._tolerance:g}",
            "steps": f"{len(path.points)} (at most {self._steps})",
            "precision": path.gradients.precision,
        }
        return [
            Explanation(
                label=label,
                map=on_places(attributions[column]),
                parameters=parameters,
                seconds=seconds / len(path.labels),
                measures=(
                    Measure(name="convergence-delta", title="Convergence delta", value=float(deltas[column])),
                    Measure(name="samples", title="Samples", value=float(path.gradients.count)),
                ),
            )
            for column, label in enumerate(path.labels)
        ]


def _bend(first: torch.Tensor, last: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return the share of an interval before its bend, (labels), from the slopes at its ends and between them.

    Where the slope between is not between those at the ends there are several bends: the nearer end then counts alone;
    where all are equal there is none, and both count alike.
    """
    span = first - last
    share = torch.where(span.abs() > FLAT * mean.abs(), (mean - last) / span, torch.full_like(span, 0.5))
    return share.nan_to_num(0.5).clamp(0.0, 1.0)


def _likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the least correlation over labels of two attributions, (labels, channels, ...), on coarse cells."""
    pairs = [_coarse(values.sum(dim=1, keepdim=True)).flatten(1).double() for values in (one, other)]
    pairs = [values - values.mean(dim=1, keepdim=True) for values in pairs]
    return float(F.cosine_similarity(pairs[0], pairs[1], dim=1).amin())


def _coarse(maps: torch.Tensor) -> torch.Tensor:
    sizes = [min(CELLS, side) for side in maps.shape[2:]]
    if len(sizes) == 2:  # noqa: PLR2004 - rows and columns
        return F.adaptive_avg_pool2d(maps, (sizes[0], sizes[1]))
    return F.adaptive_avg_pool3d(maps, (sizes[0], sizes[1], sizes[2]))


def _scale(change: torch.Tensor) -> torch.Tensor:
    """Return what errors are shares of: the change of the logit, but no less than rounding makes sense of."""
    return change.abs().clamp_min(1e-3)


def _deltas(attributions: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Return |sum of the map less the change of the logit| as a share of that change, float64 (labels)."""
    sums = attributions.double().flatten(1).sum(dim=1)
    return (sums - change).abs() / _scale(change)
