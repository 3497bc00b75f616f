"""The shapes of a chest seen from the front, as attenuation along the beam on a grid.

Coordinates: `x` runs from -1 to 1 across the image (the patient's left is on the image's right, x > 0), `y` from 0 to
1 downwards. Every function returns floats of the grid's shape: attenuation, about 1 for a chest wall without lung,
or a soft mask in [0, 1]. Proportions follow what frontal films look like; they claim no anatomical accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.floating[Any]]

OCTAVES = (3, 6, 12, 24, 48)
RIBS = 9
VERTEBRAE = 13


@dataclass(frozen=True, kw_only=True)
class Build:
    """How one phantom is proportioned; drawn from the seed."""

    apex: float
    """y of the top of the lungs."""
    base: float
    """y of the dome of the right hemidiaphragm."""
    half_width: float
    """x of the inner chest wall at its widest."""
    heart: float
    """Half-width of the heart, in x."""
    lean: float
    """x of the spine's top less that of its bottom."""
    wall: float
    """Thickness of the soft tissue beside the ribs, in x."""
    drop: float
    """How far a rib falls from the spine to the side, in y."""
    bone: float
    """Density of bone beside soft tissue."""
    shoulder: float
    """y of the shoulders' top."""


def draw_build(rng: np.random.Generator) -> Build:
    """Draw the proportions of one phantom."""
    return Build(
        apex=rng.uniform(0.11, 0.18),
        base=rng.uniform(0.66, 0.76),
        half_width=rng.uniform(0.64, 0.76),
        heart=rng.uniform(0.24, 0.33),
        lean=rng.uniform(-0.03, 0.03),
        wall=rng.uniform(0.07, 0.15),
        drop=rng.uniform(0.1, 0.16),
        bone=rng.uniform(0.75, 1.15),
        shoulder=rng.uniform(0.1, 0.16),
    )


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Coordinates of the pixel centres, each of shape (rows, columns)."""

    x: Plane
    y: Plane

    @property
    def pixel(self) -> float:
        """Height of a pixel, in y."""
        return 1.0 / len(self.y)


def grid(rows: int, columns: int, build: Build) -> Grid:
    """Return the coordinates, leaning as the spine does."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    y = (y + 0.5) / rows
    x = 2 * (x + 0.5) / columns - 1
    return Grid(x=x - build.lean * (0.5 - y), y=y)


def step(value: Plane, softness: float) -> Plane:
    """Return 0 well below zero, 1 well above, smooth in between."""
    result: Plane = 0.5 * (1 + np.tanh(value / softness))
    return result


def cage(at: Grid, build: Build) -> Plane:
    """Return the x of the inner chest wall at every y."""
    middle = build.apex + 0.72 * (build.base - build.apex)
    rise = np.clip((middle - at.y) / (middle - build.apex), 0, 0.995)
    width: Plane = build.half_width * (1 - rise**1.9) ** 0.62 * (1 + 0.05 * np.clip(at.y - middle, 0, 1))
    return width


def diaphragm(at: Grid, build: Build) -> Plane:
    """Return the y of the domes at every x; the right one (image left) is higher."""
    side = 0.022 * step(at.x, 0.1)
    offset = (np.abs(at.x) - 0.42 * build.half_width / 0.7) / (0.62 * build.half_width)
    lateral, medial = np.clip(offset, 0, 2), np.clip(-offset, 0, 2)
    dome: Plane = build.base + side + 0.1 * lateral**2 + 0.07 * lateral**6 + 0.045 * medial**2
    return dome


def mediastinum(at: Grid, build: Build) -> Plane:
    """Return a soft mask of heart, great vessels and hila."""
    level = np.clip((at.y - build.apex) / (build.base - build.apex), -0.3, 1.4)
    right = 0.13 + 0.05 * np.exp(-(((level - 0.78) / 0.24) ** 2)) + 0.02 * np.exp(-(((level - 0.4) / 0.1) ** 2))
    knob = 0.06 * np.exp(-(((level - 0.3) / 0.09) ** 2)) + 0.03 * np.exp(-(((level - 0.47) / 0.1) ** 2))
    apex = build.heart * 1.4 * np.exp(-(((level - 0.95) / 0.34) ** 2))
    left = 0.11 + knob + apex * step(level - 0.42, 0.2)
    edge = np.where(at.x < 0, at.x + right, left - at.x).astype(np.float32)
    return step(edge, 0.012)


def lung_fields(at: Grid, build: Build) -> Plane:
    """Return a soft mask of the lungs that the film shows: beside the heart, above the diaphragm."""
    inside_wall = step(cage(at, build) - np.abs(at.x), 0.012)
    above = step(diaphragm(at, build) - at.y, 0.006)
    below_apex = step(at.y - build.apex - 0.01, 0.01)
    apart = step(np.abs(at.x) - 0.1, 0.012)
    fields: Plane = inside_wall * above * below_apex * apart * (1 - mediastinum(at, build))
    return fields


def body(at: Grid, build: Build) -> Plane:
    """Return the soft tissue of trunk, shoulders and neck, about 1 in the middle and 0 in air."""
    wall = build.half_width + build.wall + 0.1 * np.clip(at.y - 0.55, 0, 1) + 0.02 * np.sin(9 * at.y + build.drop * 60)
    trunk = np.clip(1 - (np.abs(at.x) / wall) ** 2, 0, 1) ** 0.5 * step(at.y - build.shoulder - 0.02, 0.03)
    neck_width = 0.25 + 0.25 * np.exp((at.y - build.shoulder) / 0.035).clip(0, 2)
    neck = np.clip(1 - (at.x / neck_width) ** 2, 0, 1) ** 0.5 * 0.85
    slope = build.shoulder + 0.2 * np.clip(np.abs(at.x) - 0.28, 0, 2) ** 1.4
    shoulders = 0.75 * step(at.y - slope, 0.02) * step(0.43 + 0.2 * np.abs(at.x) - at.y, 0.05)
    arms = 0.7 * np.clip(1 - ((np.abs(at.x) - build.half_width - 0.33 - 0.06 * at.y) / 0.14) ** 2, 0, 1) ** 0.5
    arms = arms * step(at.y - slope - 0.05, 0.03)
    tissue: Plane = np.maximum.reduce([trunk, neck, shoulders, arms]).astype(np.float32)
    return tissue


def abdomen(at: Grid, build: Build) -> Plane:
    """Return liver, spleen and bowel below the domes, with the gas of the stomach."""
    below = step(at.y - diaphragm(at, build), 0.006)
    gas_x, gas_y = 0.36 + build.lean, build.base + 0.1
    bubble = np.exp(-((((at.x - gas_x) / 0.13) ** 2 + ((at.y - gas_y) / 0.035) ** 2) ** 1.5))
    result: Plane = below * (1 - 0.45 * bubble * step(at.y - diaphragm(at, build) - 0.012, 0.008))
    return result


def ribs(at: Grid, build: Build) -> Plane:
    """Return the ribs' attenuation: behind from the spine outwards, in front from the side inwards, fainter."""
    total = np.zeros_like(at.x)
    spacing = (build.base + 0.06 - build.apex) / RIBS
    widths = cage(at, build)
    for number in range(RIBS + 1):
        start = build.apex + 0.005 + spacing * number * (0.86 + 0.02 * number)
        row = min(int((start + build.drop * 0.6) / at.pixel), len(at.y) - 1)
        reach = float(widths[max(row, 0)].max()) + 0.02
        turn = np.sqrt(np.clip(1 - (at.x / reach) ** 2, 0, 1))
        slope = np.abs(at.x) / (reach**2 * np.maximum(turn, 0.12))
        outside = step(np.abs(at.x) - reach, 0.006)
        behind = start + build.drop * (1 - turn)
        total += (1 - outside) * _tube(at.y - behind, build.drop * slope, 0.0135) * step(np.abs(at.x) - 0.07, 0.02)
        fall = 1.15 * build.drop + 0.012 * number
        front = start + build.drop + fall * turn
        faint = 0.62 * step(np.abs(at.x) - 0.3 - 0.012 * number, 0.05)
        total += (1 - outside) * faint * _tube(at.y - front, fall * slope, 0.014)
    return total * step(1.3 * build.base - at.y, 0.08)


def _tube(offset: Plane, slope: Plane, radius: float) -> Plane:
    """Return a hollow tube's attenuation at vertical `offset` from its axis: bright rims, a lighter core."""
    distance = np.abs(offset) / np.sqrt(1 + np.minimum(slope, 3.0) ** 2) / radius
    solid = np.sqrt(np.clip(1 - distance**2, 0, 1))
    rim = np.exp(-(((distance - 0.86) / 0.16) ** 2))
    result: Plane = (0.6 * solid + 0.45 * rim).astype(np.float32)
    return result


def spine(at: Grid, rng: np.random.Generator) -> Plane:
    """Return the vertebral column: bodies, end plates, pedicles."""
    phase = at.y * VERTEBRAE + rng.uniform()
    within = phase - np.floor(phase)
    width = 0.075 + 0.035 * at.y - 0.008 * np.cos(2 * np.pi * within)
    column = step(width - np.abs(at.x), 0.008)
    disc = np.exp(-(((within - 0.5) / 0.1) ** 2))
    plates = np.exp(-((np.abs(within - 0.5) - 0.17) ** 2) / 0.0016)
    pedicle = np.exp(-(((np.abs(at.x) - 0.05) / 0.014) ** 2 + ((within - 0.95) / 0.14) ** 2))
    process = 0.5 * np.exp(-((at.x / 0.014) ** 2 + ((within - 0.2) / 0.16) ** 2))
    result: Plane = column * (0.75 - 0.3 * disc + 0.22 * plates) + 0.3 * pedicle + 0.25 * process
    return result.astype(np.float32)


def clavicles(at: Grid, build: Build) -> Plane:
    """Return both clavicles, each a lazy S from the sternum to the shoulder."""
    across = np.abs(at.x)
    along = (across - 0.1) / (build.half_width - 0.02)
    middle = build.apex + 0.095 - 0.075 * along - 0.014 * np.sin(2 * np.pi * along)
    ends = step(across - 0.1, 0.012) * step(build.half_width + 0.12 - across, 0.02)
    return ends * _tube(at.y - middle, np.full_like(at.x, 0.12), 0.0165)


def scapulae(at: Grid, build: Build) -> Plane:
    """Return the shoulder blades' edges and the heads of the humeri."""
    across = np.abs(at.x)
    edge = build.half_width + 0.01 + 0.22 * (at.y - 0.3) ** 2 * 4
    span = step(at.y - build.apex - 0.07, 0.03) * step(build.apex + 0.36 - at.y, 0.05)
    blade = span * (0.26 * step(across - edge, 0.012) * step(edge + 0.16 - across, 0.05))
    border = 0.5 * span * np.exp(-(((across - edge) / 0.012) ** 2))
    head = ((across - build.half_width - 0.27) / 0.095) ** 2 + ((at.y - build.apex - 0.1) / 0.055) ** 2
    shaft = step(at.y - build.apex - 0.12, 0.02) * step(
        0.05 - np.abs(across - build.half_width - 0.3 - 0.1 * (at.y - build.apex)), 0.012
    )
    total: Plane = blade + border + 0.85 * step(1 - head, 0.12) + 0.6 * shaft
    return total


def trachea(at: Grid, build: Build) -> Plane:
    """Return the air of trachea and main bronchi, a soft mask."""
    carina = build.apex + 0.36 * (build.base - build.apex)
    tube = step(0.038 - np.abs(at.x + 0.012), 0.01) * step(carina - at.y, 0.015)
    below = at.y - carina
    branches = (
        np.exp(-(((np.abs(at.x + 0.012) - 1.3 * below) / 0.03) ** 2)) * step(below, 0.01) * step(0.1 - below, 0.02)
    )
    result: Plane = np.maximum(tube, 0.7 * branches)
    return result


def vessels(at: Grid, build: Build, rng: np.random.Generator) -> Plane:
    """Return the pulmonary vessels: trees that leave the hila and thin out."""
    rows, columns = at.x.shape
    layers = np.zeros((4, rows, columns), dtype=np.float32)
    level = build.apex + 0.46 * (build.base - build.apex)
    for side in (-1.0, 1.0):
        for angle in np.linspace(-1.25, 1.45, 9) + rng.uniform(-0.12, 0.12, 9):
            root = (side * (0.17 if side < 0 else 0.2), level + rng.uniform(-0.03, 0.04))
            _grow(layers, Strand(root=root, side=side, angle=float(angle), generation=0), rng)
    total = np.zeros_like(at.x)
    for generation, layer in enumerate(layers):
        width = (0.0072, 0.0048, 0.0032, 0.0021)[generation] * rows
        # Stamped points become strands: the sum along a strand no longer depends on the grid.
        total += ndimage.gaussian_filter(layer, width) * width * 1.4
    return total


@dataclass(frozen=True, kw_only=True)
class Strand:
    """Where one vessel starts and heads: `root` is (x, y), `angle` in radians below the horizontal."""

    root: tuple[float, float]
    side: float
    """-1 towards the image's left, 1 towards its right."""
    angle: float
    generation: int


def _grow(layers: NDArray[np.float32], strand: Strand, rng: np.random.Generator) -> None:
    """Stamp a vessel and all its branches into the layer of its generation."""
    _, rows, columns = layers.shape
    length = (0.17, 0.13, 0.11, 0.08)[strand.generation] * rng.uniform(0.7, 1.3)
    bend = rng.uniform(-0.5, 0.5)
    along = np.linspace(0, length, max(2, int(length * rows)))
    turned = strand.angle + bend * along / length
    pace = length / len(along)
    # One unit of y is two units of x on a square image.
    x = strand.root[0] + strand.side * 2 * np.cumsum(np.cos(turned)) * pace * rows / columns
    y = strand.root[1] + np.cumsum(np.sin(turned)) * pace
    row, column = (y * rows).astype(int), ((x + 1) / 2 * columns).astype(int)
    seen = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    np.add.at(layers[strand.generation], (row[seen], column[seen]), np.float32(1))
    if strand.generation + 1 == len(layers):
        return
    for spread in (-0.45, 0.4):
        tip = (float(x[-1]), float(y[-1]))
        angle = strand.angle + spread * rng.uniform(0.6, 1.3)
        _grow(layers, Strand(root=tip, side=strand.side, angle=angle, generation=strand.generation + 1), rng)


def fractal(shape: tuple[int, int], rng: np.random.Generator) -> Plane:
    """Return noise of about unit deviation whose amplitude falls with the frequency."""
    total = np.zeros(shape, dtype=np.float32)
    for size in OCTAVES:
        noise = rng.standard_normal((size + 3, size + 3)).astype(np.float32) * (OCTAVES[0] / size) ** 0.75
        rows = np.linspace(1, size + 1, shape[0], dtype=np.float32)
        columns = np.linspace(1, size + 1, shape[1], dtype=np.float32)
        across = ndimage.map_coordinates(
            noise, np.broadcast_arrays(np.arange(size + 3)[:, None], columns[None]), order=3, mode="nearest"
        )
        total += ndimage.map_coordinates(
            across, np.broadcast_arrays(rows[:, None], np.arange(shape[1])[None]), order=3, mode="nearest"
        )
    return total
