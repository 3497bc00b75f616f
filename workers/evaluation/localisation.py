"""Where an explanation lies beside what is known of the lesion: pointing game, energy inside, overlap.

Maps and regions have shape (rows, columns) of the source image, or (slices, rows, columns) of a series; only the
positive part of a map counts, since only that is drawn. Beside the figures stands the same of two maps that know
nothing of the film's lesion: its middle, and its lungs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHIPPED_LEVEL = 0.5
"""Share of the maximum at which results draw a contour."""
TIED = 1e-5
"""Values that differ by less, of the largest, count as equal."""
LEVELS = tuple(float(level) for level in np.linspace(0.1, 0.9, 17))
FAIR_OVERLAP = 0.25
CENTRE_WIDTH = 0.25
"""Deviation of the centre prior, as a share of the film's side."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """How one map, or the mean of many, fits one region; every figure in [0, 1]."""

    pointing: float
    """1 when the maximum lies inside (Zhang et al. 2016, arXiv:1608.00507); of many equal ones, the share that does."""
    energy_inside: float
    """Share of the map's positive sum that lies inside."""
    iou: float
    """Overlap with the region at `SHIPPED_LEVEL` of the maximum."""
    iou_best: float
    """Overlap at the level that fits this region best."""

    @property
    def points(self) -> bool:
        """True when the maximum, or most of those that are equal, lies inside."""
        return self.pointing >= 0.5  # noqa: PLR2004 -- most

    @property
    def agrees(self) -> bool:
        """True when a reader would say that the map marks the lesion: maximum inside, or a fair overlap."""
        return self.points or self.iou >= FAIR_OVERLAP


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """Means over all images with a known region."""

    n: int
    found: Place
    n_called: int
    """Images that the model calls positive: on others results report no region and have no colour."""
    called: Place | None
    """As `found`, on those alone; None where there are none."""
    agreement: float
    """Share of the images in which the map agrees with the lesion; see `Place.agrees`."""
    centre_prior: Place
    lungs_prior: Place | None
    """None where no lungs were estimated."""
    area: float
    """Mean share of the film that the regions cover: what a blind map has as energy inside."""


def localise(
    maps: Sequence[NDArray[np.float32]],
    regions: Sequence[NDArray[np.bool_]],
    lungs: Sequence[NDArray[np.float32]] = (),
    *,
    called: Sequence[bool],
) -> Localisation:
    """Compare each map with its region, and both priors too; `lungs` lie on the same grids.

    `called` says of each image whether the model calls it positive.

    Raises:
        ValueError: there is nothing to compare, or a map and its region differ in shape.
    """
    if not maps or len(maps) != len(regions):
        raise ValueError(f"{len(maps)} maps do not fit {len(regions)} regions")
    found = [place(values, region) for values, region in zip(maps, regions, strict=True)]
    centre = [place(centre_prior(region.shape), region) for region in regions]
    inside = [place(soften(mask), region) for mask, region in zip(lungs, regions, strict=True)] if lungs else []
    positive = [one for one, is_called in zip(found, called, strict=True) if is_called]
    return Localisation(
        n=len(maps),
        found=_mean(found),
        n_called=len(positive),
        called=_mean(positive) if positive else None,
        agreement=float(np.mean([one.agrees for one in found])),
        centre_prior=_mean(centre),
        lungs_prior=_mean(inside) if inside else None,
        area=float(np.mean([r.mean() for r in regions])),
    )


def soften(lungs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return lungs that are brightest where they are widest: a prior must have a maximum to point with."""
    size = max(lungs.shape)
    return np.asarray(lungs * ndimage.gaussian_filter(lungs.astype(np.float32), size / 16), dtype=np.float32)


def place(values: NDArray[np.float32], region: NDArray[np.bool_]) -> Place:
    """Compare one map with one region; a map without any positive value has missed everything.

    Where a whole superpixel has the largest value, pointing is the share of it that lies inside: its first pixel would
    be its upper edge.
    """
    if values.shape != region.shape:
        raise ValueError(f"map {values.shape} and region {region.shape} lie on different grids")
    positive = np.maximum(values, 0)
    total, highest = float(positive.sum(dtype=np.float64)), float(positive.max())
    if total <= 0:
        return Place(pointing=0.0, energy_inside=0.0, iou=0.0, iou_best=0.0)
    overlaps = {level: _overlap(positive >= level * highest, region) for level in (*LEVELS, SHIPPED_LEVEL)}
    return Place(
        pointing=float(region[positive >= highest * (1 - TIED)].mean()),
        energy_inside=float(positive[region].sum(dtype=np.float64)) / total,
        iou=overlaps[SHIPPED_LEVEL],
        iou_best=max(overlaps.values()),
    )


def centre_prior(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a bell around the middle of the film or volume."""
    axes = np.meshgrid(*((np.arange(side) + 0.5) / side - 0.5 for side in shape), indexing="ij", sparse=True)
    bell = np.exp(-sum(axis**2 for axis in axes) / (2 * CENTRE_WIDTH**2))
    return np.asarray(bell, dtype=np.float32)


def _overlap(called: NDArray[np.bool_], region: NDArray[np.bool_]) -> float:
    union = int((called | region).sum())
    return int((called & region).sum()) / union if union else 0.0


def _mean(places: Sequence[Place]) -> Place:
    return Place(
        pointing=float(np.mean([p.pointing for p in places])),
        energy_inside=float(np.mean([p.energy_inside for p in places])),
        iou=float(np.mean([p.iou for p in places])),
        iou_best=float(np.mean([p.iou_best for p in places])),
    )
