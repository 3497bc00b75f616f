"""What is on a screen, against what a DICOM object says should be there."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydicom.pixels.utils import pixel_array
from scipy import ndimage
from scipy.signal import fftconvolve

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    Grey = NDArray[np.float64]
    Colour = NDArray[np.float64]


def from_png(content: bytes) -> Colour:
    """Return a picture as (rows, columns, 3), 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float64)


def shown_grey(dataset: Dataset) -> Grey:
    """Return a grey image through its own rescale and window, 0 to 255 (PS3.3 C.11.2.1.2), light bones."""
    values = pixel_array(dataset).astype(np.float64)
    values = values * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    center, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    light = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    return 255 - light if dataset.PhotometricInterpretation == "MONOCHROME1" else light


def shown_colour(dataset: Dataset, frame: int = 0) -> Colour:
    """Return a true-colour image."""
    return np.asarray(pixel_array(dataset, index=frame), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Where an image lies in a canvas that shows the whole of it."""

    scale: float
    left: float
    top: float
    shape: tuple[int, int]
    """Rows and columns of the image."""

    def place(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Map (n, 2) image coordinates, column and row from the corner of the first pixel, to the canvas."""
        return np.asarray(points, dtype=np.float64) * self.scale + (self.left, self.top)

    def draw(self, image: NDArray[Any], canvas: tuple[int, int]) -> Colour:
        """Return the canvas as it should look, (rows, columns, 3)."""
        rows, columns = (max(1, round(side * self.scale)) for side in self.shape)
        picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).resize((columns, rows), Image.Resampling.BOX)
        paper = Image.new("RGB", (canvas[1], canvas[0]))
        paper.paste(picture.convert("RGB"), (round(self.left), round(self.top)))
        return np.asarray(paper, dtype=np.float64)


def fit(shape: tuple[int, int], canvas: tuple[int, int]) -> Fit:
    """Fit an image of square pixels into a canvas, both (rows, columns), as viewers do: whole and in the middle."""
    scale = min(canvas[0] / shape[0], canvas[1] / shape[1])
    return Fit(
        scale=scale,
        left=(canvas[1] - shape[1] * scale) / 2,
        top=(canvas[0] - shape[0] * scale) / 2,
        shape=shape,
    )


def likeness(one: NDArray[Any], other: NDArray[Any], *, blur: int = 1) -> float:
    """Return the correlation of two pictures; 1 for the same picture, -1 for its negative, 0 with one that is even.

    A blur of some pixels forgives how an engine scales thin letters.
    """
    size = (blur, blur) + (1,) * (one.ndim - 2)
    one, other = ndimage.uniform_filter(one, size), ndimage.uniform_filter(other, size)
    if not one.std() or not other.std():
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def coloured(picture: Colour, *, least: float = 40.0, blur: int = 1) -> NDArray[np.bool_]:
    """Mark pixels that are no grey; a blur of some pixels forgives how an engine scales thin letters."""
    smooth = ndimage.uniform_filter(picture, (blur, blur, 1))
    return (smooth.max(axis=2) - smooth.min(axis=2)) > least


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return intersection over union."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def widest_white(picture: Grey) -> int:
    """Return the length of the longest white run in any row: the width of a page on a screen."""
    longest = 0
    for row in picture >= 254:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        longest = max(longest, int((edges[1::2] - edges[::2]).max(initial=0)))
    return longest


def find(part: Grey, picture: Grey) -> tuple[float, int, int]:
    """Return the best normalised correlation of a part anywhere in a picture, and its row and column there."""
    centred = part - part.mean()
    ones = np.ones_like(part)
    products = fftconvolve(picture, centred[::-1, ::-1], "valid")
    sums, squares = fftconvolve(picture, ones, "valid"), fftconvolve(picture**2, ones, "valid")
    spread = np.maximum(squares - sums**2 / part.size, 1.0)
    scores = products / np.sqrt(spread * (centred**2).sum())
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores.max()), int(row), int(column)
