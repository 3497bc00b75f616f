"""A model package is loaded only when its weights are what its card says."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from films import as_image
from safetensors.torch import load_file, save

from service.errors import ModelError, NotEligibleError
from service.model_card import load_card
from service.settings import packaged_config
from workers.models.package import load_package

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return shutil.copytree(packaged_config() / "models" / "pneumonia-compact", tmp_path / "package")


def replace_weights(package: Path, content: bytes) -> None:
    """Put other weights into the package and correct the digest in its card."""
    card = (package / "model.toml").read_text()
    old = load_card(package).weights
    (package / old.file).write_bytes(content)
    (package / "model.toml").write_text(card.replace(old.sha256, hashlib.sha256(content).hexdigest()))


def test_shipped_package_answers_with_a_probability(package: Path) -> None:
    classifier = load_package(package, CPU)
    film = as_image(np.random.default_rng(0).random((300, 260)))
    logits = classifier.logits(classifier.preprocess(film))
    assert logits.shape == (1, 1)
    assert 0 <= classifier.probabilities(logits)[0, 0] <= 1
    assert classifier.to_source(film, torch.rand(14, 14)).shape == (300, 260)


def test_shipped_weights_are_small_enough_for_the_repository(package: Path) -> None:
    assert (package / load_card(package).weights.file).stat().st_size <= 12_000_000


def test_logits_do_not_differ_between_two_runs(package: Path) -> None:
    film = as_image(np.random.default_rng(1).random((128, 128)))
    first, second = (load_package(package, CPU) for _ in range(2))
    assert torch.equal(first.logits(first.preprocess(film)), second.logits(second.preprocess(film)))


def test_altered_weights_are_refused_before_they_are_parsed(package: Path) -> None:
    weights = package / load_card(package).weights.file
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match=r"sha256 is .* model.toml says .* restore it"):
        load_package(package, CPU)


def test_missing_weights_are_named(package: Path) -> None:
    (package / load_card(package).weights.file).unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        load_package(package, CPU)


def test_weights_outside_the_package_are_refused(package: Path) -> None:
    card = (package / "model.toml").read_text()
    (package / "model.toml").write_text(card.replace('"weights.safetensors"', '"../weights.safetensors"'))
    with pytest.raises(ModelError, match="must lie in the package"):
        load_package(package, CPU)


def test_a_file_that_is_no_safetensors_is_refused(package: Path) -> None:
    replace_weights(package, b"\x80\x04 a pickle, perhaps")
    with pytest.raises(ModelError, match="no safetensors file"):
        load_package(package, CPU)


@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape"])
def test_weights_that_do_not_fit_the_graph_are_refused(package: Path, fault: str) -> None:
    tensors = load_file(package / load_card(package).weights.file)
    if fault == "missing":
        del tensors["fc.bias"]
    elif fault == "unexpected":
        tensors["fc.extra"] = torch.zeros(1)
    else:
        tensors["fc.bias"] = torch.zeros(7)
    replace_weights(package, save(tensors))
    with pytest.raises(ModelError, match=f"1 tensors {fault}, first 'fc"):
        load_package(package, CPU)


def test_a_layer_that_the_graph_lacks_is_refused(package: Path) -> None:
    card = (package / "model.toml").read_text()
    (package / "model.toml").write_text(card.replace('cam_layer = "features"', 'cam_layer = "layer9"'))
    with pytest.raises(ModelError, match="no layer 'layer9'"):
        load_package(package, CPU)


def test_an_answer_that_is_not_finite_is_an_error(package: Path) -> None:
    tensors = load_file(package / load_card(package).weights.file)
    tensors["fc.bias"] = torch.tensor([float("nan")], dtype=torch.float16)
    replace_weights(package, save(tensors))
    with pytest.raises(ModelError, match="not finite"):
        load_package(package, CPU)


def test_a_constant_image_is_not_eligible(package: Path) -> None:
    classifier = load_package(package, CPU)
    with pytest.raises(NotEligibleError, match="black"):
        classifier.preprocess(as_image(np.zeros((100, 100))))
    with pytest.raises(NotEligibleError, match="constant"):
        classifier.preprocess(as_image(np.full((100, 100), 0.5)))
