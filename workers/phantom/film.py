"""Puts a phantom's shapes together into a film: attenuation, opacities, scatter, exposure, noise, 12 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from workers.phantom import anatomy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workers.phantom.anatomy import Build, Grid, Plane

WHITE = 4095
"""Largest 12-bit value."""
VISIBLE = 0.15
"""Share of full opacification from which a pixel counts as opacity."""
SIZE = (1024, 960)


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A film of no one, with what is in it; every array has shape (rows, columns)."""

    pixels: NDArray[np.uint16]
    """12 bits, MONOCHROME2: air is dark, bone is bright."""
    lungs: NDArray[np.bool_]
    opacities: NDArray[np.bool_]
    """True where an opacity was planted; all False without."""
    seed: int


def make_phantom(seed: int, size: tuple[int, int] = SIZE, opacities: int = 0) -> Phantom:
    """Draw the phantom of a seed; the same seed and size give the same pixels.

    Args:
        seed: chooses proportions, exposure, vessels, noise and where the opacities lie.
        size: (rows, columns), at least 64 each.
        opacities: how many consolidation-like opacities lie in the lungs. The chest itself does not depend on it.

    Raises:
        ValueError: the size is too small for a chest.
    """
    if min(size) < 64:  # noqa: PLR2004 - said in the docstring
        raise ValueError(f"a phantom needs at least 64 rows and columns, not {size}")
    shape, chest, disease, detector = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4))
    build = anatomy.draw_build(shape)
    at = anatomy.grid(*size, build)
    fields = anatomy.lung_fields(at, build)
    attenuation = _attenuation(at, build, fields, chest)
    density = _consolidation(at, fields, opacities, disease)
    attenuation += density * 0.92 * _lost_to_air(at, build, fields)
    pixels = _expose(attenuation, detector)
    return Phantom(pixels=pixels, lungs=fields > 0.5, opacities=density > VISIBLE, seed=seed)  # noqa: PLR2004


def _lost_to_air(at: Grid, build: Build, fields: Plane) -> Plane:
    """Return how much attenuation the air of the lungs takes away."""
    level = np.clip((at.y - build.apex) / (build.base - build.apex), 0, 1)
    depth = np.clip(1 - (np.abs(at.x) / (build.half_width * 1.12)) ** 4, 0.35, 1)
    lost: Plane = fields * depth * (0.46 + 0.1 * np.sin(np.pi * level) - 0.05 * level)
    return lost


def _attenuation(at: Grid, build: Build, fields: Plane, rng: np.random.Generator) -> Plane:
    tissue = anatomy.body(at, build)
    total = 0.86 * tissue**0.8
    total = total + 0.03 * anatomy.fractal(at.x.shape, rng) * tissue
    total -= _lost_to_air(at, build, fields)
    abdomen = anatomy.abdomen(at, build)
    heart = anatomy.mediastinum(at, build) * anatomy.step(at.y - build.apex, 0.03)
    # Heart and liver lie on top of each other without adding up: the trunk has only so much room.
    total += 0.22 * np.maximum(heart * anatomy.step(build.base + 0.04 - at.y, 0.05), abdomen) * tissue
    total += 0.16 * build.bone * anatomy.spine(at, rng)
    total += 0.135 * build.bone * anatomy.ribs(at, build)
    total += 0.13 * build.bone * anatomy.clavicles(at, build)
    total += 0.17 * build.bone * anatomy.scapulae(at, build) * (tissue > 0.1)  # noqa: PLR2004
    total -= 0.13 * anatomy.trachea(at, build)
    strands = anatomy.vessels(at, build, rng)
    total += np.clip(0.1 * strands, 0, 0.2) * (0.25 + 0.75 * fields) * fields
    result: Plane = total.astype(np.float32)
    return result


def _consolidation(at: Grid, fields: Plane, count: int, rng: np.random.Generator) -> Plane:
    """Return the density of the opacities in [0, 1]: ragged, textured, darker towards the rim."""
    density = np.zeros_like(at.x)
    inside = np.flatnonzero(fields > 0.9)  # noqa: PLR2004 - well within
    for _ in range(count):
        # A place by its share of the lung, not by a pixel's number: the same at every size.
        place = inside[min(int(rng.uniform() * len(inside)), len(inside) - 1)]
        row, column = np.unravel_index(place, at.x.shape)
        width, stretch = rng.uniform(0.045, 0.13), np.exp(rng.uniform(-0.3, 0.3))
        across = (at.x - at.x[row, column]) / (2 * width * stretch)
        down = (at.y - at.y[row, column]) / (width / stretch)
        ragged = np.hypot(across, down) + 0.22 * anatomy.fractal(at.x.shape, rng)
        blob = anatomy.step(1 - ragged, rng.uniform(0.15, 0.4)) * rng.uniform(0.6, 1.0)
        blob *= np.clip(0.8 + 0.14 * anatomy.fractal(at.x.shape, rng), 0.3, 1.0)
        density = np.maximum(density, blob)
    result: Plane = density * np.clip(fields * 1.2, 0, 1)
    return result


def _expose(attenuation: Plane, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return detector values: scatter, blur, quantum noise, and a curve as a film would have."""
    rows = attenuation.shape[0]
    scatter = ndimage.gaussian_filter(attenuation, rows / 14)
    seen = 0.86 * attenuation + 0.14 * scatter
    seen = ndimage.gaussian_filter(seen, rows * 0.0007)
    dose = rng.uniform(0.6, 1.6)
    # Fewer quanta come through where more is absorbed.
    grain = 0.012 / np.sqrt(dose) * np.exp(0.6 * np.clip(seen, 0, 1.6))
    noise = ndimage.gaussian_filter(rng.standard_normal(seen.shape).astype(np.float32), 0.6) * 1.6
    seen = seen + grain * noise * min(1.0, (rows / 1024) ** 0.5)
    low, high = rng.uniform(0.02, 0.08), rng.uniform(1.22, 1.42)
    share = np.clip((seen - low) / (high - low), 0, 1) ** rng.uniform(0.85, 1.2)
    result: NDArray[np.uint16] = np.round(60 + share * (WHITE - 200)).astype(np.uint16)
    return result
