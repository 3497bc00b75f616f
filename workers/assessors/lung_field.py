"""Where the lungs probably are on any frontal chest film: light, and good enough to judge a map by, not to measure.

The outline is made generous on purpose (each side's convex hull, the missing side mirrored, a margin): a lung that
is white with disease is still a lung, and a map that lies there must not be blamed for it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw
from safetensors import SafetensorError
from safetensors.torch import load
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from service.errors import ModelError
from service.settings import packaged_config
from workers.preprocess import resize, standardize
from workers.training.lung_network import SIDE, LungNetwork, complete_lungs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ASSET = "lung-field.safetensors"
"""In the folder `config`."""
PLAUSIBLE = (0.08, 0.62)
"""Share of the film that both outlined lungs cover; outside of it nothing was found."""
CERTAIN = 0.5
"""Probability from which a pixel of the network's answer counts as lung."""
CRUMB = 0.12
"""A piece smaller than this share of the largest is no lung."""
MARGIN = 0.02
"""Of the film's side: hila, pleura and the estimate's own error."""


def lung_field(grey: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Estimate the lungs of a frontal chest film.

    Args:
        grey: float32 (rows, columns) in [0, 1], MONOCHROME2; any size, resized to `SIDE` squared.

    Returns:
        A mask (SIDE, SIDE) over the film's whole extent, or None when nothing plausible was found: a lateral view,
        another body part, a film too dark to tell.

    Raises:
        ModelError: the shipped network is missing or altered.
    """
    film = torch.tensor(grey, dtype=torch.float32)[None, None]
    with torch.inference_mode():
        logits = _network()(standardize(resize(film, SIDE, SIDE)))
    return generous(torch.sigmoid(logits)[0, 0].numpy())


def generous(probability: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Turn probabilities (SIDE, SIDE) into a generous mask of both lungs, or None when that is implausible."""
    mask = complete_lungs(_largest(probability > CERTAIN).astype(np.uint8)) > 0
    if not mask.any():
        return None
    middle = SIDE // 2
    whole = np.zeros_like(mask)
    for side in (slice(None, middle), slice(middle, None)):
        half = np.zeros_like(mask)
        half[:, side] = mask[:, side]
        whole |= _hull(half)
    grown = ndimage.binary_dilation(whole, iterations=round(MARGIN * SIDE))
    return grown if PLAUSIBLE[0] <= float(grown.mean()) <= PLAUSIBLE[1] else None


def load_lung_network(path: Path) -> LungNetwork:
    """Load the weights that `pellucid lung-field` wrote.

    Raises:
        ModelError: the file is missing, no safetensors, or does not fit the network.
    """
    try:
        tensors = {name: tensor.float() for name, tensor in load(path.read_bytes()).items()}
    except (OSError, SafetensorError):
        raise ModelError(f"{path}: the lung-field network cannot be read; reinstall Pellucid") from None
    network = LungNetwork()
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise ModelError(f"{path}: does not fit the lung-field network; reinstall Pellucid") from None
    return network.eval()


@lru_cache(maxsize=1)
def _network() -> LungNetwork:
    return load_lung_network(packaged_config() / ASSET)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the pieces that are large enough to be a lung or a good part of one."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    kept: NDArray[np.bool_] = np.isin(labels, np.flatnonzero(areas >= max(1.0, CRUMB * areas.max())))
    return kept


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    points = np.argwhere(mask)
    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError, IndexError):
        return mask  # fewer than three points, or all on a line: no hull, nothing lost
    picture = Pillow.new("1", (mask.shape[1], mask.shape[0]))
    ImageDraw.Draw(picture).polygon([(int(column), int(row)) for row, column in corners], fill=1)
    hull: NDArray[np.bool_] = mask | np.asarray(picture, dtype=bool)
    return hull
