from __future__ import annotations

import numpy as np
import pytest

from workers.evaluation.localisation import centre_prior, localise, place

REGION = np.zeros((40, 40), dtype=bool)
REGION[4:14, 6:16] = True


def bell(row: int, column: int) -> np.ndarray:
    y, x = np.mgrid[0:40, 0:40]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 18).astype(np.float32)


def test_a_map_on_the_lesion_beats_the_centre_prior() -> None:
    found = localise([bell(9, 11)], [REGION], called=[True])
    assert found.n == 1
    assert found.found.pointing == 1
    assert found.found.energy_inside > 0.7 > found.centre_prior.energy_inside
    assert found.found.iou_best >= found.found.iou > 0.3
    assert found.centre_prior.pointing == 0
    assert found.area == pytest.approx(100 / 1600)


def test_images_called_positive_are_reported_apart() -> None:
    found = localise([bell(9, 11), bell(32, 30)], [REGION, REGION], called=[True, False])
    assert found.found.pointing == 0.5
    assert found.n_called == 1
    assert found.called
    assert found.called.pointing == 1
    assert localise([bell(9, 11)], [REGION], called=[False]).called is None


def test_a_map_elsewhere_misses() -> None:
    missed = place(bell(32, 30), REGION)
    assert missed.pointing == 0
    assert missed.energy_inside < 0.01
    assert missed.iou == 0


def test_a_flat_map_has_the_energy_of_chance() -> None:
    assert place(np.ones((40, 40), np.float32), REGION).energy_inside == pytest.approx(REGION.mean())


def test_negative_evidence_does_not_count() -> None:
    assert place(-bell(9, 11), REGION).energy_inside == 0
    assert place(bell(9, 11) - 3 * bell(30, 30), REGION).pointing == 1


def test_of_a_superpixel_that_has_the_maximum_the_share_inside_counts() -> None:
    rows, columns = np.nonzero(REGION)
    superpixel = np.zeros(REGION.shape, np.float32)
    superpixel[rows.min() - 2 : rows.max() + 1, columns.min() : columns.max() + 1] = 1.0
    found = place(superpixel, REGION)
    assert found.pointing == pytest.approx(float(REGION[superpixel > 0].mean()))
    assert 0.5 < found.pointing < 1
    assert found.points


def test_the_region_itself_overlaps_fully() -> None:
    perfect = place(REGION.astype(np.float32), REGION)
    assert (perfect.iou, perfect.energy_inside) == (1, 1)


def test_maps_on_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="different grids"):
        place(np.ones((20, 40), np.float32), REGION)
    with pytest.raises(ValueError, match="do not fit"):
        localise([], [], called=[])


def test_the_centre_prior_is_highest_in_the_middle() -> None:
    prior = centre_prior((21, 31))
    assert np.unravel_index(int(prior.argmax()), prior.shape) == (10, 15)


def test_the_lungs_prior_stands_beside_the_map_and_has_a_maximum_inside_the_lungs() -> None:
    lungs = np.zeros((64, 64), dtype=np.float32)
    lungs[10:50, 5:25] = 1.0
    region = np.zeros((64, 64), dtype=np.bool_)
    region[20:40, 8:22] = True
    found = localise([np.ones((64, 64), dtype=np.float32)], [region], [lungs], called=[False])
    assert found.lungs_prior is not None
    assert found.lungs_prior.pointing == 1.0
    assert found.lungs_prior.energy_inside > found.area * 2
