"""What a volume network marks comes back to the voxel that it saw, tilted, uneven or cut out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.errors import NotEligibleError
from service.images import Image, ImageHeader, Series
from service.model_card import Input
from workers.preprocess import image_to_input
from workers.volumes import series_range, series_to_volume, slices_to_input, volume_to_source

VOLUME = Input(rows=40, columns=40, slices=20, normalization="percentile")
SPACED = Input(rows=40, columns=40, slices=20, normalization="percentile", spacing_mm=(4.0, 4.0, 4.0))


def header() -> ImageHeader:
    return ImageHeader(
        sop_instance_uid="2.25.1",
        modality="CT",
        body_part="HEAD",
        rows=80,
        columns=80,
    )


def series_of(
    volume: np.ndarray,
    positions: np.ndarray,
    offsets: tuple[tuple[float, float], ...] = (),
    spacing: tuple[float, float] | None = (2.0, 2.0),
) -> Series:
    scaled = volume.astype(np.float32)
    grey = np.clip(scaled / max(float(scaled.max()), 1e-6), 0, 1)
    slices = tuple(
        Image(header=header(), grey=g, values=v, pixel_spacing_mm=spacing) for g, v in zip(grey, scaled, strict=True)
    )
    return Series(
        slices=slices,
        positions_mm=tuple(float(p) for p in positions),
        gantry_tilt_degrees=10.0 if offsets else 0.0,
        offsets_mm=offsets,
    )


def ball(positions: np.ndarray, at_mm: tuple[float, float, float], shear: np.ndarray | None = None) -> np.ndarray:
    """Draw a ball of 9 mm in slices of 80 x 80 pixels of 2 mm; `shear` is where each slice's first row lies."""
    rows = columns = np.arange(80) * 2.0
    down = np.zeros(len(positions)) if shear is None else shear
    squares = (
        (positions[:, None, None] - at_mm[0]) ** 2
        + (rows[None, :, None] + down[:, None, None] - at_mm[1]) ** 2
        + (columns[None, None] - at_mm[2]) ** 2
    )
    return np.clip(2 - np.sqrt(squares) / 9, 0, 1) * 1000 + 20


def centre_mm(volume: torch.Tensor, step: float, first: tuple[float, float, float]) -> np.ndarray:
    """Return the centre of what is bright, in mm."""
    weight = (volume - volume.min()).clamp_min(0).square().numpy()
    return np.array(
        [
            float((weight.sum(axis=tuple(a for a in range(3) if a != axis)) * np.arange(size)).sum() / weight.sum())
            * step
            + first[axis]
            for axis, size in enumerate(volume.shape)
        ]
    )


@pytest.mark.parametrize("uneven", [False, True])
def test_distances_in_the_volume_are_distances_in_the_patient(uneven: bool) -> None:
    positions = np.array([0, 2, 4, 8, 12, 13, 14, 20, 26, 30, 34, 40, 44, 50, 58, 60, 66, 70, 76, 80.0])
    positions = positions if uneven else np.linspace(0, 80, 20)
    series = series_of(ball(positions, (44.0, 50.0, 100.0)), positions)
    volume = series_to_volume(series, SPACED)[0, 0]
    # The volume's middle is the series' middle: 40 mm, 80 mm, 80 mm (pixel centres from 0 to 158).
    first = (40.0 - 9.5 * 4, 79.0 - 19.5 * 4, 79.0 - 19.5 * 4)
    assert centre_mm(volume, 4.0, first) == pytest.approx((44.0, 50.0, 100.0), abs=1.5)


def test_a_tilt_is_taken_back() -> None:
    positions = np.linspace(0, 80, 41)
    shear = positions * np.tan(np.radians(20))
    upright = series_of(ball(positions, (60.0, 90.0, 80.0)), positions)
    offsets = tuple((float(s), 0.0) for s in shear)
    tilted = series_of(ball(positions, (60.0, 90.0, 80.0), shear), positions, offsets)
    middle = float(np.median(shear))
    first = (40.0 - 9.5 * 4, 79.0 - 19.5 * 4, 79.0 - 19.5 * 4)
    straight = centre_mm(series_to_volume(upright, SPACED)[0, 0], 4.0, first)
    found = centre_mm(series_to_volume(tilted, SPACED)[0, 0], 4.0, (first[0], first[1] + middle, first[2]))
    assert found == pytest.approx(straight, abs=1.5)


@pytest.mark.parametrize("expected", [VOLUME, SPACED])
@pytest.mark.parametrize("tilted", [False, True])
def test_a_map_comes_back_to_the_slices_that_it_is_about(expected: Input, tilted: bool) -> None:
    positions = np.linspace(0, 90, 31)
    shear = positions * 0.2 if tilted else np.zeros(31)
    offsets = tuple((float(s), 0.0) for s in shear) if tilted else ()
    drawn = ball(positions, (60.0, 70.0, 90.0), shear)
    series = series_of(drawn, positions, offsets)
    back = volume_to_source(series, series_to_volume(series, expected)[0, 0], expected)
    assert back.shape == drawn.shape
    assert back.dtype == np.float32
    place = np.unravel_index(int(back.argmax()), back.shape)
    assert drawn[place] > 900


def test_a_coarser_map_comes_back_on_the_whole_extent() -> None:
    positions = np.linspace(0, 90, 31)
    series = series_of(ball(positions, (60.0, 70.0, 90.0)), positions)
    assert volume_to_source(series, torch.ones(5, 10, 10), VOLUME) == pytest.approx(1.0)


def test_what_the_network_did_not_see_is_zero() -> None:
    positions = np.linspace(0, 300, 31)
    series = series_of(ball(positions, (150.0, 70.0, 90.0)), positions)
    back = volume_to_source(series, torch.ones(20, 40, 40), SPACED)
    assert back[15].max() == pytest.approx(1.0)
    assert back[:10].max() == 0.0
    assert back[-10:].max() == 0.0


def test_percentiles_are_those_of_the_whole_series() -> None:
    positions = np.linspace(0, 40, 5)
    volume = np.repeat(np.linspace(0, 100, 80 * 80).reshape(1, 80, 80), 5, axis=0)
    volume[2] *= 0.1
    batch = slices_to_input(series_of(volume, positions), Input(rows=40, columns=40, normalization="percentile"))
    assert batch.shape == (5, 1, 40, 40)
    assert float(batch[2].max()) == pytest.approx(0.1 * float(batch[1].max()), abs=0.02)


def test_a_series_without_contrast_is_refused() -> None:
    positions = np.linspace(0, 40, 5)
    with pytest.raises(NotEligibleError, match="constant"):
        series_to_volume(series_of(np.full((5, 80, 80), 7.0), positions), VOLUME)
    with pytest.raises(NotEligibleError, match="black"):
        slices_to_input(series_of(np.zeros((5, 80, 80)), positions), Input(rows=40, columns=40))


def test_pixels_without_a_size_are_refused_only_where_it_matters() -> None:
    positions = np.linspace(0, 40, 5)
    series = series_of(ball(positions, (20.0, 70.0, 90.0)), positions, spacing=None)
    with pytest.raises(NotEligibleError, match="how large their pixels are"):
        series_to_volume(series, SPACED)
    assert series_to_volume(series, VOLUME).shape == (1, 1, 20, 40, 40)


def test_a_slice_is_cut_out_for_its_answer_as_for_its_explanation() -> None:
    expected = Input(rows=16, columns=16, normalization="percentile", fit="centre-crop")
    positions = np.arange(3) * 2.0
    volume = np.random.default_rng(3).random((3, 24, 40)) * 100
    series = series_of(volume, positions)
    batch = slices_to_input(series, expected)
    for index, image in enumerate(series.slices):
        alone = image_to_input(image, expected, series_range(series, expected))
        torch.testing.assert_close(batch[index : index + 1], alone)
