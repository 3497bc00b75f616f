"""Procedural heads: a CT with or without a planted bleed, an MR with or without a planted tumour, truth to the voxel.

Ellipsoids, noise and shells; they look like a head to a small network and to nobody else, and claim no anatomical
accuracy. What is not the lesion and yet looks a little like it is planted in every head, diseased or not: bright
calcifications in CT, a bright scalp and bright ventricle rims in MR, so that brightness alone gives nothing away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Volume = NDArray[np.floating[Any]]

HEIGHT_MM, DEPTH_MM, WIDTH_MM = 150.0, 220.0, 180.0
"""Of the block that holds a head: along the axis, front to back, side to side."""


@dataclass(frozen=True, kw_only=True)
class HeadPhantom:
    """A head of no one; arrays (slices, rows, columns) begin at the feet, the front and the patient's right."""

    volume: NDArray[np.int16]
    """CT: HU. MR: arbitrary units from 0, another scale in every phantom."""
    lesion: NDArray[np.bool_]
    positions_mm: tuple[float, ...]
    pixel_mm: float


@dataclass(frozen=True, kw_only=True)
class _Head:
    inside: Volume
    """1 in the brain, 0 at the inner skull, negative outside; roughly the share of the way."""
    depth_mm: Volume
    """Distance from the scalp's surface, positive inside."""
    ventricles: Volume
    grid: tuple[Volume, Volume, Volume]


def make_head_ct(seed: int, *, bleed: bool, shape: tuple[int, int, int] = (24, 96, 96)) -> HeadPhantom:
    """Draw a head CT of a seed; the same seed and shape give the same voxels.

    Args:
        seed: chooses proportions, noise and where the bleed lies; the head does not depend on the bleed.
        bleed: plant an intracerebral haemorrhage of 55 to 75 HU and 12 to 35 mm.
        shape: (slices, rows, columns).
    """
    anatomy, texture, disease = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    head = _draw_head(shape, anatomy)
    brain = head.inside > 0
    hu = np.full(shape, -1000.0, dtype=np.float32)
    hu[head.depth_mm > 0] = 30.0
    hu[(head.depth_mm > 3) & ~brain] = texture.uniform(700, 1100)  # noqa: PLR2004 - mm of scalp
    hu = np.where(brain, 34 + 3 * _noise(shape, texture, 3.0) + 4 * np.clip(head.inside * -3 + 1, 0, 1), hu)
    hu = np.where(brain, hu * (1 - head.ventricles) + 8 * head.ventricles, hu)
    # Calcified pineal gland and choroid plexus: small, far brighter than blood, in every head.
    for place in ((0.02, 0.1, 0.0), (0.05, 0.2, -0.17), (0.05, 0.2, 0.17)):
        spot = _ball(head, place, anatomy.uniform(2.0, 3.2))
        hu = np.where(spot > 0, 160.0, hu)
    lesion = np.zeros(shape, dtype=bool)
    if bleed:
        blob = _lesion(head, disease, (6.0, 17.0))
        lesion = (blob > 0.5) & brain  # noqa: PLR2004
        hu = np.where(brain, hu * (1 - blob) + disease.uniform(55, 75) * blob, hu)
    hu = ndimage.gaussian_filter(hu, (0.3, 0.6, 0.6)) + texture.uniform(1.5, 3.5) * _noise(shape, texture, 0.5)
    return _phantom(np.clip(hu, -1024, 3000), lesion)


def make_brain_mr(seed: int, *, tumour: bool, shape: tuple[int, int, int] = (24, 96, 96)) -> HeadPhantom:
    """Draw a FLAIR-like brain MR of a seed, with a scale and a coil's shading of its own.

    Args:
        seed: as in `make_head_ct`.
        tumour: plant a ragged bright mass of 18 to 40 mm, darker in the middle.
        shape: (slices, rows, columns).
    """
    anatomy, texture, disease = (np.random.default_rng(s) for s in np.random.SeedSequence(seed + 2**32).spawn(3))
    head = _draw_head(shape, anatomy)
    brain = head.inside > 0
    signal = np.zeros(shape, dtype=np.float32)
    signal[(head.depth_mm > 0) & (head.depth_mm < 4)] = 0.9  # noqa: PLR2004 - mm of fat
    cortex = np.clip(1 - head.inside * 4, 0, 1)
    signal = np.where(brain, 0.42 + 0.12 * cortex + 0.03 * _noise(shape, texture, 2.0), signal)
    rim = ndimage.gaussian_filter(head.ventricles, 1.0) * (1 - head.ventricles)
    signal = np.where(brain, signal * (1 - head.ventricles) + 0.08 * head.ventricles + 0.35 * rim, signal)
    lesion = np.zeros(shape, dtype=bool)
    if tumour:
        blob = _lesion(head, disease, (9.0, 20.0))
        core = np.clip(blob * 2 - 1, 0, 1) * disease.uniform(0.0, 0.6)
        lesion = (blob > 0.5) & brain  # noqa: PLR2004
        signal = np.where(brain, signal + blob * disease.uniform(0.25, 0.45) - 0.3 * core * blob, signal)
    shading = 1 + 0.15 * ndimage.gaussian_filter(texture.standard_normal(shape), [s / 3 for s in shape]) * 30
    signal = np.abs(ndimage.gaussian_filter(signal, (0.3, 0.5, 0.5)) * np.clip(shading, 0.7, 1.3))
    signal = np.abs(signal + 0.02 * texture.standard_normal(shape))
    return _phantom(np.clip(signal * texture.uniform(300, 2500), 0, 4095), lesion)


def _phantom(volume: Volume, lesion: NDArray[np.bool_]) -> HeadPhantom:
    slices, rows, _ = volume.shape
    step = HEIGHT_MM / slices
    return HeadPhantom(
        volume=np.round(volume).astype(np.int16),
        lesion=lesion,
        positions_mm=tuple(float((index + 0.5) * step - HEIGHT_MM / 2) for index in range(slices)),
        pixel_mm=DEPTH_MM / rows,
    )


def _draw_head(shape: tuple[int, int, int], rng: np.random.Generator) -> _Head:
    slices, rows, columns = shape
    z = ((np.arange(slices) + 0.5) / slices - 0.5) * HEIGHT_MM
    y = ((np.arange(rows) + 0.5) / rows - 0.5) * DEPTH_MM
    x = ((np.arange(columns) + 0.5) / columns - 0.5) * DEPTH_MM
    turn = rng.uniform(-0.12, 0.12)
    zz, yy, xx = (axis.astype(np.float32) for axis in np.meshgrid(z, y, x, indexing="ij"))
    yy, xx = yy * np.cos(turn) - xx * np.sin(turn), yy * np.sin(turn) + xx * np.cos(turn)
    yy, xx = yy - rng.uniform(-8, 8), xx - rng.uniform(-8, 8)
    radii = (rng.uniform(82, 95), rng.uniform(84, 98), rng.uniform(66, 78))
    base = zz + rng.uniform(15, 30)  # the head's widest level lies below the middle of the block
    radius = np.sqrt((base / radii[0]) ** 2 + (yy / radii[1]) ** 2 + (xx / radii[2]) ** 2)
    depth = (1 - radius) * float(np.mean(radii[1:]))
    skull = rng.uniform(9, 13)
    inside = (depth - skull) / (float(np.mean(radii[1:])) - skull)
    # The falx's gap and two ventricles, wider apart at the back.
    wing = 10 + 0.16 * np.abs(yy)
    ventricle = ((np.abs(xx) - wing) / rng.uniform(5, 9)) ** 2 + (yy / rng.uniform(28, 38)) ** 2 + (base / 22) ** 2
    ventricles = 1 / (1 + np.exp(np.clip((ventricle - 1) * 6, -30, 30)))
    return _Head(inside=inside, depth_mm=depth, ventricles=ventricles.astype(np.float32), grid=(base, yy, xx))


def _lesion(head: _Head, rng: np.random.Generator, radii_mm: tuple[float, float]) -> Volume:
    """Return a ragged soft mask in the brain, away from skull and ventricles."""
    allowed = np.flatnonzero((head.inside > 0.22) & (head.ventricles < 0.2))  # noqa: PLR2004
    place = np.unravel_index(allowed[int(rng.uniform() * len(allowed))], head.inside.shape)
    radius = rng.uniform(*radii_mm)
    stretch = np.exp(rng.uniform(-0.25, 0.25, 3))
    squares = [((axis - axis[place]) / (radius * s)) ** 2 for axis, s in zip(head.grid, stretch, strict=True)]
    ragged = np.sqrt(sum(squares)) + 0.18 * _noise(head.inside.shape, rng, 2.5)
    blob: Volume = np.clip((1 - ragged) * 5 + 0.5, 0, 1) * (head.inside > 0.03) * (1 - head.ventricles)  # noqa: PLR2004
    return blob.astype(np.float32)


def _ball(head: _Head, place: tuple[float, float, float], radius_mm: float) -> Volume:
    centre = [share * extent for share, extent in zip(place, (HEIGHT_MM, DEPTH_MM, WIDTH_MM), strict=True)]
    squares = [((axis - at) / radius_mm) ** 2 for axis, at in zip(head.grid, centre, strict=True)]
    ball: Volume = np.clip(1 - np.sqrt(sum(squares)), 0, 1)
    return ball


def _noise(shape: tuple[int, ...], rng: np.random.Generator, width: float) -> Volume:
    """Return smooth noise of unit deviation; `width` in voxels of the plane, half of it along the axis."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), (width / 2, width, width))
    result: Volume = noise / float(noise.std())
    return result
