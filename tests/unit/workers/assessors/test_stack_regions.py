"""Who is the patient in a series, and where was nothing measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.assessors.stack_regions import StackRegions, padding, patient
from workers.assessors.tube import as_series, head
from workers.phantom.demonstration_cards import CT_INPUT, MR_INPUT

SEED = 920_000


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_patient_holds_the_lesion_and_no_tube_beside_the_head(modality: str) -> None:
    plain, tubed = (head(modality, SEED, sick=True, tube=tube) for tube in (False, True))
    body = patient(as_series(tubed, modality))
    tube = plain.volume != tubed.volume
    assert tube.any()
    assert body[tubed.lesion].mean() > 0.99
    assert body[tube].mean() < 0.05
    assert 0.15 < body.mean() < 0.5


def test_a_patient_that_fills_every_slice_is_everything() -> None:
    phantom = replace(head("CT", SEED, sick=False), volume=np.full((6, 64, 64), 40, dtype=np.int16))
    assert patient(as_series(phantom, "CT")).all()


def test_corners_that_a_scanner_filled_in_were_not_measured_and_noisy_air_was() -> None:
    rng = np.random.default_rng(0)
    air = (-1000 + 20 * rng.standard_normal((128, 128))).astype(np.float32)
    assert not padding(air).any()
    rows, columns = np.mgrid[:128, :128]
    outside = (rows - 64) ** 2 + (columns - 64) ** 2 > 62**2
    assert padding(np.where(outside, np.float32(-1024), np.maximum(air, -1010)))[outside].mean() > 0.95
    # Air that was clipped to the lowest value is scattered over the slice, not joined to its edge.
    assert padding(np.maximum(air, -1000)).mean() < 0.01


def test_regions_lie_on_the_grid_of_the_input_and_beyond_the_slices_nothing_was_measured() -> None:
    phantom = head("MR", SEED, sick=True)
    series = as_series(phantom, "MR")
    whole = StackRegions(series, MR_INPUT).of_volume()
    assert whole.body.shape == (24, 48, 48)
    assert whole.unscanned is not None
    assert not whole.unscanned.any()
    assert whole.lungs is whole.text is None
    few = replace(series, slices=series.slices[8:14], positions_mm=series.positions_mm[8:14])
    part = StackRegions(few, MR_INPUT).of_volume()
    assert part.unscanned is not None
    assert part.unscanned[[0, 1, -1]].all()
    assert not part.unscanned[12].any()
    one = StackRegions(as_series(head("CT", SEED, sick=True), "CT"), CT_INPUT).of_slice(12)
    assert one.body.shape == one.border.shape == (96, 96)
