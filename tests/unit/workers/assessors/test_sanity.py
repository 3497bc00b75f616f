from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from bright_spots import CPU, Against, Broken, Fixed

from service.errors import UnsupportedMethodError
from workers.assessors.sanity import NothingToCompareError, check_sanity
from workers.explainers.cam import GradCam
from workers.models.compact import CompactResNet
from workers.models.package import PackagedClassifier

if TYPE_CHECKING:
    from bright_spots import Telling

    from workers.assessors.case import Scene


@pytest.fixture
def deep(model: PackagedClassifier) -> PackagedClassifier:
    torch.manual_seed(6)
    network = CompactResNet().eval().requires_grad_(requires_grad=False)
    return PackagedClassifier(card=model.card, network=network, device=CPU)


def test_a_map_of_the_network_changes_with_its_weights_and_a_fixed_one_does_not(
    deep: PackagedClassifier, scene: Scene
) -> None:
    fixed = check_sanity(deep, Fixed("fixed"), scene.batch, 0)
    real = check_sanity(deep, GradCam(), scene.batch, 0)
    assert not fixed.passed
    assert "stays alike" in fixed.sentence
    assert all(stage.similarity == pytest.approx(1.0) for stage in fixed.stages)
    assert real.passed
    assert real.stages[-1].similarity < 0.7
    assert real.stages[-1].layers.startswith("stem")


def test_the_check_repeats_and_leaves_the_model_as_it_was(deep: PackagedClassifier, scene: Scene) -> None:
    assert deep.network is not None
    before = {name: value.clone() for name, value in deep.network.state_dict().items()}
    first = check_sanity(deep, GradCam(), scene.batch, 0)
    assert check_sanity(deep, GradCam(), scene.batch, 0) == first
    assert all(torch.equal(value, before[name]) for name, value in deep.network.state_dict().items())


def test_a_model_without_weights_is_refused(deep: PackagedClassifier, scene: Scene) -> None:
    with pytest.raises(UnsupportedMethodError, match="no weights"):
        check_sanity(replace(deep, network=None), Fixed("fixed"), scene.batch, 0)


@pytest.mark.parametrize(
    ("explainer", "reason"), [(Against("against"), "marks nothing"), (Broken("broken"), "not finite")]
)
def test_a_map_that_says_nothing_passes_no_check(
    deep: PackagedClassifier, scene: Scene, explainer: Telling, reason: str
) -> None:
    with pytest.raises(NothingToCompareError, match=reason):
        check_sanity(deep, explainer, scene.batch, 0)
