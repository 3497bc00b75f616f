from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from service.cli import cli
from service.results import Measure
from workers.assessors.calibration import Gathered, flagged, plausibility_of, propose
from workers.assessors.case import Criterion
from workers.assessors.plausibility import Plausibility
from workers.assessors.shortcut import as_batch, letter, lettered_phantom, plain_phantom, teach_shortcut
from workers.explainers.cam import GradCam

if TYPE_CHECKING:
    from workers.models.package import PackagedClassifier

SIDE = 224


@pytest.fixture(scope="module")
def label_reader() -> PackagedClassifier:
    return teach_shortcut(1, lambda _n: None)


@pytest.mark.timeout(900)
def test_the_maps_of_a_model_that_reads_a_label_are_caught(label_reader: PackagedClassifier) -> None:
    films = [lettered_phantom(500 + index, SIDE, opacities=1 + index % 3) for index in range(20)]
    rows = [plausibility_of(label_reader, GradCam(), film) for film in films]
    assert np.mean([flagged(row, Plausibility().criteria) for row in rows]) >= 0.95
    assert np.median([row["energy-text"] for row in rows]) > 0.4


@pytest.mark.timeout(900)
def test_it_really_reads_the_label_and_not_the_lungs(label_reader: PackagedClassifier) -> None:
    answers = []
    for draw in (lettered_phantom, plain_phantom):
        films = np.stack([draw(700 + index, 160, opacities=1) for index in range(8)])
        logits = torch.cat([label_reader.logits(as_batch(film, 112, 112)) for film in films])
        answers.append(float(label_reader.probabilities(logits).mean()))
    assert answers[0] > 2 * answers[1]


def test_a_label_is_white_and_lies_beside_the_middle() -> None:
    plain = np.full((200, 180), 0.3, dtype=np.float32)
    lettered = letter(plain, 3)
    changed = np.argwhere(lettered != plain)
    assert 0 < len(changed) < 0.05 * plain.size
    assert lettered.max() == pytest.approx(1.0, abs=0.05)
    assert changed[:, 0].max() < 100
    assert abs(changed[:, 1].mean() - 90) > 20


def test_thresholds_lie_between_the_good_and_the_bad() -> None:
    high = Criterion(measure="energy-a", higher_is_better=True, caution=0, hide=0, reason="{value}.")
    low = Criterion(measure="b", higher_is_better=False, caution=0, hide=0, reason="{value}.")
    good = [{"energy-a": 0.9 + 0.01 * i, "b": 0.01 * i} for i in range(10)]
    bad = [{"energy-a": 0.1, "b": 0.9} for _ in range(10)]
    gathered = Gathered(good={"set": good}, chance=bad, label_reader=bad, missed=0, negative=0)
    first, second = propose(gathered, (high, low))
    assert 0.1 < first.hide < first.caution < 0.91
    assert 0.08 < second.caution < second.hide < 0.9
    assert (first.good_flagged, first.bad_hidden, second.good_flagged, second.bad_hidden) == (0, 1, 0, 1)
    # With the criteria's own numbers, which are 0: nothing is below, and all but the first good map is above.
    assert first.shipped == (0, 0, 0, 0)
    assert second.shipped == (0.9, 0.9, 1, 1)


def test_a_threshold_is_never_laxer_than_chance() -> None:
    criterion = Criterion(measure="gain", higher_is_better=True, caution=0, hide=0, reason="{value}.", chance=0.0)
    good = [{"gain": value} for value in (-0.5, -0.4, 0.2, 0.3)]
    gathered = Gathered(good={"set": good}, chance=[{"gain": -0.1}], label_reader=[], missed=0, negative=0)
    (proposal,) = propose(gathered, (criterion,))
    assert proposal.caution == 0.0
    assert proposal.hide < -0.3


def test_flagged_means_beyond_caution() -> None:
    criteria = Plausibility().criteria
    fine = {"energy-lungs": 0.9, "energy-body": 1.0, "energy-border": 0.0, "energy-text": 0.0}
    assert not flagged(fine, criteria)
    assert flagged(fine | {"energy-text": 0.5}, criteria)
    assert flagged(fine | {"energy-lungs": 0.2}, criteria)
    assert Measure(name="x", title="x", value=0.0).baseline is None


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    ended = CliRunner().invoke(cli, ["bench", "localisation", "--methods", "grad-cm"])
    assert ended.exit_code == 2
    assert "grad-cam" in ended.output


@pytest.mark.timeout(900)
def test_the_benchmark_reports_each_method_beside_its_priors() -> None:
    options = ["--phantoms", "2", "--methods", "grad-cam", "--labelled", "0", "--json"]
    ended = CliRunner().invoke(cli, ["bench", "localisation", *options])
    assert ended.exit_code == 0, ended.output
    report = json.loads(ended.stdout)
    assert report["methods"]["grad-cam"]["n"] == report["centre_prior"]["n"] == report["n"] == 2
    for part in (report["methods"]["grad-cam"], report["centre_prior"], report["lungs_prior"]):
        assert 0 <= part["pointing"] <= 1
        assert 0 < part["energy_inside"] <= 1
    assert 0 < report["chance"] < 0.5
