"""The colour scale of heatmaps: dark violet to yellow with rising lightness, readable with any colour vision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CUT = 0.85
"""The scale ends before its near-white top, which would look like bone."""
_ANCHORS = np.array(
    [
        (0, 0, 4),
        (27, 12, 65),
        (74, 12, 107),
        (120, 28, 109),
        (165, 44, 96),
        (207, 68, 70),
        (237, 105, 37),
        (251, 155, 6),
        (247, 209, 61),
        (252, 255, 164),
    ],
    dtype=np.float32,
)
"""Ten points of the inferno scale (S. van der Walt and N. Smith, 2015, CC0), linear in between."""
TRANSPARENT_BELOW = 0.25
OPAQUE = 0.55
"""Alpha at the maximum: the film stays visible under the strongest colour."""


def heat(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return RGB in [0, 255], shape (*values.shape, 3), for values in [0, 1]."""
    position = np.clip(values, 0.0, 1.0) * _CUT
    places = np.linspace(0.0, 1.0, len(_ANCHORS))
    channels = [np.interp(position, places, _ANCHORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def alpha(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return opacity in [0, 0.55]: nothing below a quarter of the maximum, then rising with the value."""
    rising = (values - TRANSPARENT_BELOW) / (1.0 - TRANSPARENT_BELOW)
    return np.asarray(np.clip(rising, 0.0, 1.0) * OPAQUE, dtype=np.float32)


def blend(grey: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay the heat over a film.

    Args:
        grey: (rows, columns) in [0, 1].
        values: magnitude on the same grid.

    Returns:
        RGB in [0, 255], float32 of shape (rows, columns, 3).
    """
    opacity = alpha(values)[..., None]
    film = np.repeat(grey[..., None] * 255.0, 3, axis=-1)
    return np.asarray(film * (1.0 - opacity) + heat(values) * opacity, dtype=np.float32)
