"""The benches of series: where maps of phantom heads lie, which verdicts they get, and good and bad maps apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.settings import packaged_config
from workers.assessors.calibration import propose
from workers.assessors.case import SERIES, Kind
from workers.assessors.faithfulness import Faithfulness
from workers.assessors.plausibility import Plausibility
from workers.assessors.series_calibration import gather_heads, kind_of, modality_of
from workers.assessors.stability import Stability
from workers.bench_series import criteria_of_series, localise_heads
from workers.evaluation.localisation import centre_prior, place
from workers.explainers.cam import GradCam
from workers.models.package import PackagedClassifier, load_package


@pytest.fixture(scope="module")
def model() -> PackagedClassifier:
    return load_package(packaged_config() / "models" / "brain-mr-tumour-demo", torch.device("cpu"))


def test_maps_of_heads_are_placed_beside_chance_and_their_verdicts_counted(model: PackagedClassifier) -> None:
    seen: list[int] = []
    report = localise_heads(model, (GradCam(),), 1, dear=0, advance=seen.append)
    assert seen == [1]
    assert report["reading"] == "volume"
    found = report["methods"]["grad-cam"]  # type: ignore[index]
    assert found["n"] == 1
    assert found["energy_inside"] > 5 * report["chance"]  # type: ignore[operator]
    assert found["energy_inside"] > report["body_prior"]["energy_inside"]  # type: ignore[index]
    assert sum(sum(counts.values()) for counts in found["verdicts"].values()) == 1


def test_good_maps_of_heads_and_chance_differ_in_every_figure(model: PackagedClassifier) -> None:
    gathered = gather_heads(model, GradCam(), model, heads=1, tubes=1, advance=lambda _: None)
    (good,) = gathered.good.values()
    assert len(gathered.chance) == len(good) + gathered.missed == 1 - gathered.negative
    assert len(gathered.label_reader) == 1
    criteria = criteria_of_series(model, [*Faithfulness().criteria, *Stability().criteria, *Plausibility().criteria])
    assert all(SERIES & criterion.kinds for criterion in criteria)
    proposals = {proposal.measure: proposal for proposal in propose(gathered, criteria)}
    for measure in ("faithfulness-chance", "stability-noise", "stability-turn", "stability-shift"):
        assert proposals[measure].good_quantiles != proposals[measure].bad_quantiles
        # With the numbers that are shipped no good map is hidden.
        assert proposals[measure].shipped[1] == 0.0
    # No phantom has padding: nothing can be proposed, and the number was set by hand.
    assert "energy-unscanned" not in proposals


def test_the_phantoms_and_the_reading_are_those_that_the_card_names(model: PackagedClassifier) -> None:
    slices = load_package(packaged_config() / "models" / "head-ct-bleed-demo", torch.device("cpu"))
    assert (modality_of(model), kind_of(model)) == ("MR", Kind.VOLUME)
    assert (modality_of(slices), kind_of(slices)) == ("CT", Kind.SLICE)


def test_the_prior_of_a_volume_points_to_its_middle() -> None:
    middle = np.zeros((9, 11, 13), dtype=bool)
    middle[4, 5, 6] = True
    assert place(centre_prior(middle.shape), middle).pointing == 1.0
