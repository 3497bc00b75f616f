"""What no package may do: hold another program or number than its card says, or rebuild an object."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
import torch
from packages import CPU, Stranger, onnx_bytes, scripted, write_package

from service.errors import ModelError, SettingsError
from service.model_card import load_card
from workers.models.package import load_package

if TYPE_CHECKING:
    from pathlib import Path


def test_onnx_with_numbers_in_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx", reason="writing ONNX needs the onnx package")
    graph = onnx.load_from_string(onnx_bytes(Stranger()))
    first = next(entry for entry in graph.graph.initializer if entry.raw_data)
    # ONNX Runtime would look for it in the folder that the worker was started in, whose files no digest covers.
    (tmp_path / "elsewhere.bin").write_bytes(first.raw_data)
    monkeypatch.chdir(tmp_path)
    first.data_location = onnx.TensorProto.EXTERNAL
    first.ClearField("raw_data")
    first.external_data.add(key="location", value="elsewhere.bin")
    package = write_package(tmp_path / "p", graph.SerializeToString(), weights='format = "onnx"')
    with pytest.raises(ModelError, match="one file, with its numbers inside"):
        load_package(package, CPU)


@pytest.mark.parametrize("kind", ["torchscript", "torch-export", "monai-bundle"])
def test_a_program_is_not_loaded_unless_somebody_vouches_for_it(tmp_path: Path, kind: str) -> None:
    package = write_package(tmp_path / "p", b"whatever", weights=f'format = "{kind}"')
    with pytest.raises(ModelError, match="trusted = true"):
        load_package(package, CPU)


def test_an_altered_program_is_not_loaded_even_when_trusted(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", scripted(Stranger()), weights='format = "torchscript"\ntrusted = true')
    weights = package / "weights.bin"
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="sha256"):
        load_package(package, CPU)


@pytest.mark.parametrize("kind", ["torchscript", "torch-export", "onnx", "safetensors", "state-dict"])
def test_a_file_of_another_format_is_refused_with_its_name(tmp_path: Path, kind: str) -> None:
    more = 'graph = "resnet18"' if kind in {"safetensors", "state-dict"} else "trusted = true"
    package = write_package(tmp_path / "p", b"no model at all", weights=f'format = "{kind}"\n{more}')
    with pytest.raises(ModelError, match=r"weights\.bin"):
        load_package(package, CPU)


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return type(self.target).touch, (self.target,)


@pytest.mark.parametrize("kind", ["state-dict", "torchxrayvision"])
def test_a_pickled_object_is_never_rebuilt(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    target = tmp_path / "trapped"
    torch.save({"fc.weight": torch.zeros(1), "trap": Trap(target)}, buffer)
    package = write_package(tmp_path / "p", buffer.getvalue(), weights=f'format = "{kind}"\ngraph = "resnet18"')
    with pytest.raises(ModelError, match="only a program could rebuild"):
        load_package(package, CPU)
    assert not target.exists()


def test_a_network_with_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p", scripted(Stranger(labels=3)), weights='format = "torchscript"\ntrusted = true'
    )
    with pytest.raises(ModelError, match="one logit for each of 2 labels"):
        load_package(package, CPU)


def test_a_network_of_another_input_is_refused(tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p", scripted(Stranger(channels=3)), weights='format = "torchscript"\ntrusted = true'
    )
    with pytest.raises(ModelError, match=r"does not take the input that model\.toml describes"):
        load_package(package, CPU)


def test_a_network_that_answers_with_nan_is_refused(tmp_path: Path) -> None:
    network = Stranger()
    network.fc.bias.data.fill_(float("nan"))
    package = write_package(tmp_path / "p", scripted(network), weights='format = "torchscript"\ntrusted = true')
    with pytest.raises(ModelError, match="not finite"):
        load_package(package, CPU)


def test_weights_outside_the_package_are_refused(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", b"x", weights='format = "onnx"')
    (tmp_path / "other.bin").write_bytes(b"x")
    card = (package / "model.toml").read_text().replace('"weights.bin"', '"../other.bin"')
    (package / "model.toml").write_text(card)
    with pytest.raises(ModelError, match="must lie in the package"):
        load_package(package, CPU)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('code = { value = "233604007", scheme = "SCT", meaning = "Pneumonia" }', "", "'labels.0.code' is missing"),
        ('value = "233604007"', 'value = "pneumonia"', "is no code of SCT"),
        ('scheme = "SCT"', 'scheme = "XYZ"', "coding scheme 'XYZ'"),
        ('operating_point = "balanced"', 'operating_point = "best"', "no operating point 'best'"),
        ('name = "label 1"', 'name = "label 0"', "two labels"),
        ("[training]", "[series]\nreading = 'volume'\n[training]", "go together"),
        ("rows = 32", 'rows = 32\nnormalization = "window"', "window_center"),
        ("rows = 32", "rows = 32\nmean = [0.5, 0.5]", "2 values for 1 channels"),
        ("limits =", "task = 'binary'\nlimits =", "one label, not 2"),
        ('format = "onnx"', 'format = "safetensors"', "graph' is missing"),
    ],
)
def test_a_card_that_cannot_be_right_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    package = write_package(tmp_path / "p", b"x", weights='format = "onnx"')
    card = (package / "model.toml").read_text()
    assert old in card
    (package / "model.toml").write_text(card.replace(old, new, 1))
    with pytest.raises(SettingsError, match=reason):
        load_card(package)
