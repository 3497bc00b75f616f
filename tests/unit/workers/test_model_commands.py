"""`pellucid models` and `pellucid bench inference` on the shipped packages and on broken ones."""

from __future__ import annotations

import json
import math
import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from service.errors import ModelError, SettingsError
from service.model_card import load_card
from service.settings import packaged_config
from workers.bench_inference import inference
from workers.explainers.cam import GradCam
from workers.explainers.gradients import SmoothGrad
from workers.model_commands import models
from workers.models.check import check_package, write_check
from workers.models.doubts import doubts_of
from workers.models.export import export_onnx
from workers.models.package import load_package
from workers.models.runtimes import OnnxRuntime
from workers.phantom.film import make_phantom
from workers.preprocess import standardize

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
PACKAGES = packaged_config() / "models"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models directory of the test's own, with one package in it."""
    place = tmp_path / "models"
    shutil.copytree(PACKAGES / "head-ct-bleed-demo", place / "head-ct-bleed-demo")
    monkeypatch.setenv("PELLUCID__MODELS__DIRECTORY", f'"{place}"')
    return place


def test_a_package_is_listed_and_shown(folder: Path) -> None:
    (row,) = json.loads(CliRunner().invoke(models, ["list", "--json"], catch_exceptions=False).stdout)
    assert (row["name"], row["reads"], row["checked"], row["fault"]) == ("head-ct-bleed-demo", "slices", False, "")
    shown = (
        CliRunner(env={"COLUMNS": "200"}).invoke(models, ["show", "head-ct-bleed-demo"], catch_exceptions=False).stdout
    )
    assert "Never for patients" in shown
    assert "PLANTED-BLEED" in shown


def test_a_package_with_a_wrong_card_is_listed_with_its_fault(folder: Path) -> None:
    card = folder / "head-ct-bleed-demo" / "model.toml"
    card.write_text(re.sub(r'scheme = "[^"]*"', 'scheme = "???"', card.read_text()))
    (row,) = json.loads(CliRunner().invoke(models, ["list", "--json"], catch_exceptions=False).stdout)
    assert "coding scheme" in row["fault"]


def test_a_check_is_kept_beside_the_card(folder: Path) -> None:
    arguments = ["check", "head-ct-bleed-demo", "--explainer", "grad-cam", "--json"]
    found = json.loads(CliRunner().invoke(models, arguments, catch_exceptions=False).stdout)
    assert json.loads((folder / "head-ct-bleed-demo" / "check.json").read_text()) == found
    assert found["passed"]
    assert found["deterministic"]
    assert found["images_per_second"] > 0
    (method,) = found["methods"]
    assert (method["method"], method["supported"], method["deterministic"]) == ("grad-cam", True, True)
    (row,) = json.loads(CliRunner().invoke(models, ["list", "--json"], catch_exceptions=False).stdout)
    assert row["checked"] is True


def test_an_unknown_name_is_told_with_the_nearest(folder: Path) -> None:
    done = CliRunner().invoke(models, ["show", "head-ct-bleed"])
    assert done.exit_code != 0
    assert "did you mean 'head-ct-bleed-demo'" in str(done.exception) + done.output


def test_a_package_is_added_only_when_it_works(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "new"
    shutil.copytree(PACKAGES / "head-ct-bleed-demo", source)
    card = source / "model.toml"
    card.write_text(card.read_text().replace('"head-ct-bleed-demo"', '"mine"'))
    done = CliRunner().invoke(models, ["add", str(source)], catch_exceptions=False)
    assert done.exit_code == 0
    assert load_card(folder / "mine").name == "mine"
    assert json.loads((folder / "mine" / "check.json").read_text())["passed"]
    again = CliRunner().invoke(models, ["add", str(source)])
    assert "exists" in str(again.exception) + again.output
    weights = source / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    card.write_text(card.read_text().replace('"mine"', '"broken"'))
    broken = CliRunner().invoke(models, ["add", str(source)])
    assert "sha256" in str(broken.exception) + broken.output
    assert not (folder / "broken").exists()
    assert [path.name for path in folder.glob(".adding-*")] == []


def test_a_package_that_calls_itself_trusted_needs_the_administrators_word(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "new"
    shutil.copytree(PACKAGES / "head-ct-bleed-demo", source)
    card = source / "model.toml"
    content = card.read_text().replace('"head-ct-bleed-demo"', '"mine"').replace("[input]", "trusted = true\n\n[input]")
    card.write_text(content)
    done = CliRunner().invoke(models, ["add", str(source)])
    assert "--trust" in str(done.exception) + done.output
    assert not (folder / "mine").exists()


def test_a_package_with_a_link_is_refused_before_anything_of_it_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    source = tmp_path / "new"
    source.mkdir()
    (source / "notes.txt").symlink_to(tmp_path / "secret")
    done = CliRunner().invoke(models, ["add", str(source)])
    assert done.exit_code != 0
    assert "holds files and folders, no links" in str(done.exception) + done.output
    assert [path.name for path in folder.iterdir()] == ["head-ct-bleed-demo"]


def test_what_a_check_holds_against_a_method_is_known_only_for_the_weights_it_saw(tmp_path: Path) -> None:
    package = shutil.copytree(PACKAGES / "pneumonia-compact", tmp_path / "p")
    found = check_package(package, CPU, explainers=[GradCam()])
    assert found.methods[0].sanity_passed is True
    path = write_check(package, found)
    card = load_card(package)
    assert doubts_of(package, card) == {}
    content = json.loads(path.read_text())
    assert len(content["methods"]) > 10  # what the shipped check saw of the other methods stays
    (grad_cam,) = (entry for entry in content["methods"] if entry["method"] == "grad-cam")
    grad_cam |= {"sanity_passed": False, "sanity": "stays alike"}
    path.write_text(json.dumps(content))
    assert doubts_of(package, card) == {"grad-cam": ("stays alike",)}
    path.write_text(json.dumps(content | {"sha256": "0" * 64}))
    assert doubts_of(package, card) == {}
    path.write_text("{")
    assert doubts_of(package, card) == {}


def test_a_thorough_check_draws_the_weights_anew_for_dear_methods_too(tmp_path: Path) -> None:
    smoothgrad = SmoothGrad(samples=8)
    quick = check_package(PACKAGES / "pneumonia-compact", CPU, explainers=[smoothgrad])
    assert quick.methods[0].sanity_passed is None
    tried: list[str] = []
    thorough = check_package(
        PACKAGES / "pneumonia-compact", CPU, explainers=[smoothgrad], sanity_below=math.inf, progress=tried.append
    )
    assert thorough.methods[0].sanity_passed is True
    assert tried == ["smoothgrad"]
    for found in (thorough, quick):  # what the quick one did not test stays
        write_check(tmp_path, found)
    (kept,) = json.loads((tmp_path / "check.json").read_text())["methods"]
    assert kept["sanity_passed"] is True
    assert kept["sanity"] == thorough.methods[0].sanity


def test_onnx_gives_the_same_probabilities(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="exporting needs the onnx package")
    classifier = load_package(PACKAGES / "pneumonia-compact", CPU)
    content, difference = export_onnx(classifier)
    assert difference <= 1e-3
    batch = torch.randn(3, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    session = OnnxRuntime(content, CPU, where="here")
    assert session.provider == "CPUExecutionProvider"
    expected = classifier.probabilities(classifier.exact_logits(batch))
    assert classifier.probabilities(session(batch)) == pytest.approx(expected, abs=1e-3)
    out = tmp_path / "network.onnx"
    arguments = ["export", "pneumonia-compact", "--out", str(out)]
    assert CliRunner().invoke(models, arguments, catch_exceptions=False).exit_code == 0
    assert out.stat().st_size == len(content)


def test_an_onnx_package_is_not_exported_again() -> None:
    classifier = load_package(PACKAGES / "pneumonia-compact", CPU)
    classifier.network = None
    with pytest.raises(ModelError, match="ONNX already"):
        export_onnx(classifier)


def test_the_bench_prints_every_runtime_beside_eager_float32(folder: Path) -> None:
    arguments = ["--model", "head-ct-bleed-demo", "--batch", "2", "--rounds", "2", "--json"]
    done = CliRunner().invoke(inference, arguments, catch_exceptions=False)
    figures = json.loads(done.stdout)["figures"]
    assert (figures[0]["runtime"], figures[0]["precision"], figures[0]["speedup"]) == ("torch", "float32", 1.0)
    assert {"torch", "torch-folded"} <= {figure["runtime"] for figure in figures}
    assert sum(figure["used"] for figure in figures) == 1
    exact = [figure for figure in figures if figure["precision"] == "float32"]
    assert all(figure["probability_difference"] <= 1e-3 for figure in exact)


def test_the_fast_runtime_of_a_shipped_package_changes_no_decision() -> None:
    classifier = load_package(PACKAGES / "pneumonia-compact", CPU)
    films = [make_phantom(seed, (224, 224), opacities=seed % 3).pixels.astype(np.float32) / 4095 for seed in range(12)]
    batch = standardize(torch.from_numpy(np.stack(films))[:, None])
    fast, exact = (
        classifier.probabilities(classifier.logits(batch)),
        classifier.probabilities(classifier.exact_logits(batch)),
    )
    assert np.abs(fast - exact).max() <= 0.02
    for point in classifier.card.labels[0].operating_points:
        assert ((fast >= point.threshold) == (exact >= point.threshold)).all()


def test_a_missing_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        load_package(tmp_path, CPU)
