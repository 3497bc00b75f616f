"""What a map of a CT or MR series should and should not lie on: patient, border, and where nothing was measured.

Classical estimates to judge an explanation by, no anatomy. They are made of the slices as they came and carried onto
the grid of the network's input, so that a map is measured where the network saw it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from workers.assessors.regions import Regions, border_mask
from workers.assessors.skull import intracranial
from workers.preprocess import crop, resize
from workers.volumes import mask_to_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.images import Series
    from service.model_card import Input

FINEST = 128
"""Rows or columns on which the patient is looked for; a body has no finer outline that matters here."""
SKIN_HU = -300.0
"""Between air and fat. Lungs are filled afterwards, as they lie inside."""
SIGNAL = 0.12
"""Share of the 99th percentile below which an MR's voxels are background: noise is less, a shaded skull more."""
THIN = 0.02
"""Half the thickness of a table or a tube, as a share of the slice's side: what is thinner is no patient."""
SOLID = 2
"""Pixels: a patch of one value is padding where a square of 2 `SOLID` + 1 fits into it. Air has noise."""
HALF = 0.5
HEAD_MM = 230.0
"""Height of a slice whose pixels have no size."""


class StackRegions:
    """The regions of a series, on the grid of the input that a card describes.

    Args:
        series: the slices.
        expected: the input of the model that reads them.
    """

    def __init__(self, series: Series, expected: Input) -> None:
        self._series = series
        self._expected = expected

    def of_slice(self, index: int) -> Regions:
        """Return the regions of one slice on the grid of a two-dimensional network's input."""
        measured = ~padding(self._series.slices[index].values)
        inside = self._intracranial
        return _regions(
            self._carried(self._patient[index]),
            self._carried(measured),
            None if inside is None else self._carried(inside[index]),
        )

    def of_volume(self) -> Regions:
        """Return the regions on the grid of a three-dimensional network's input.

        What the network was given beyond the slices counts as not measured.
        """
        measured = np.stack([~padding(image.values) for image in self._series.slices])
        inside = self._intracranial
        return _regions(
            mask_to_volume(self._series, self._patient, self._expected),
            mask_to_volume(self._series, measured, self._expected),
            None if inside is None else mask_to_volume(self._series, inside, self._expected),
        )

    @cached_property
    def _patient(self) -> NDArray[np.bool_]:
        return patient(self._series)

    @cached_property
    def _intracranial(self) -> NDArray[np.bool_] | None:
        first = self._series.slices[0]
        if first.header.modality != "CT":
            return None
        values = np.stack([_coarse(image.values) for image in self._series.slices])
        rows = first.grey.shape[0]
        pixel_mm = first.pixel_spacing_mm[0] if first.pixel_spacing_mm else HEAD_MM / rows
        return intracranial(values, pixel_mm * rows / values.shape[1])

    def _carried(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        rows, columns = self._series.slices[0].grey.shape
        plane = resize(torch.from_numpy(mask.astype(np.float32))[None, None], rows, columns)
        cut = resize(crop(plane, self._expected), self._expected.rows, self._expected.columns)
        return np.asarray(cut[0, 0].numpy())


def _regions(body: NDArray[np.float32], measured: NDArray[np.float32], inside: NDArray[np.float32] | None) -> Regions:
    return Regions(
        body=body >= HALF,
        border=border_mask(*body.shape),
        unscanned=measured < HALF,
        intracranial=None if inside is None else inside >= HALF,
    )


def patient(series: Series) -> NDArray[np.bool_]:
    """Return the patient, bool (slices, rows, columns) over the whole slices on a grid of `FINEST` at most.

    It is the largest thing that is no air, filled slice by slice (an MR's skull is as dark as air), without what is
    thin: table, tubes, clothes. Everything where nothing of the kind is found.
    """
    values = np.stack([_coarse(image.values) for image in series.slices])
    if series.slices[0].header.modality == "CT":
        floor = SKIN_HU
    else:
        lowest = float(values.min())
        floor = lowest + SIGNAL * (float(np.percentile(values, 99)) - lowest)
    across = np.ones((1, 3, 3), dtype=bool)
    thin = max(1, round(THIN * min(values.shape[1:])))
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in values > floor])
    pieces, count = ndimage.label(ndimage.binary_opening(filled, structure=across, iterations=thin))
    if count == 0:
        return np.ones(values.shape, dtype=bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == int(sizes.argmax()))


def padding(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return what the scanner filled in, bool (rows, columns): patches of the slice's lowest value at its edge.

    Declared padding has that value when it is read; scanners also fill the corners around a round field of view with
    one, and do not always say so.
    """
    lowest = np.pad(values == values.min(), SOLID, constant_values=True)
    solid = ndimage.binary_opening(lowest, structure=np.ones((3, 3)), iterations=SOLID)
    pieces, _ = ndimage.label(solid)
    edge = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    filled: NDArray[np.bool_] = np.isin(pieces, edge[edge > 0])[SOLID:-SOLID, SOLID:-SOLID]
    return filled


def _coarse(values: NDArray[np.float32]) -> NDArray[np.float32]:
    scale = FINEST / max(values.shape)
    if scale >= 1:
        return values
    rows, columns = (max(1, round(size * scale)) for size in values.shape)
    small: NDArray[np.float32] = resize(torch.from_numpy(values)[None, None], rows, columns)[0, 0].numpy()
    return small
