"""Whatever the format: the digest first, nothing unpickled, and an answer equal to the network's own."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from service.errors import ModelError, SettingsError
from service.model_card import load_card
from workers.models.calibration import op_norm, pooled
from workers.models.export import onnx_of
from workers.models.graphs import build_graph
from workers.models.loaders import XRV_PATHOLOGIES
from workers.models.package import load_package

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
CARD = """
name = "brought"
title = "Brought by a hospital"
version = "1"
manufacturer = "Test"
intended_use = "Test."
limits = "Test."
{task}
[weights]
file = "{file}"
sha256 = "{sha256}"
{weights}
[input]
rows = 32
columns = 32
{input}
[training]
data = "none"
licence = "none"
attribution = "none"
"""
LABEL = """
[[labels]]
name = "{name}"
code = {{ value = "233604007", scheme = "SCT", meaning = "Pneumonia" }}
operating_point = "balanced"
{more}
[[labels.operating_points]]
name = "balanced"
threshold = 0.5
sensitivity = 0.9
specificity = 0.9
"""


class Stranger(nn.Module):
    """A small network, that returns logits or what `ends` makes of them."""

    def __init__(self, labels: int = 2, ends: str = "", channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(channels, 4, 3, stride=2)
        self.fc = nn.Linear(4, labels)
        self.ends = ends

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.fc(torch.relu(self.conv(x)).mean(dim=(2, 3)))
        if self.ends == "sigmoid":
            return torch.sigmoid(logits)
        if self.ends == "softmax":
            return torch.softmax(logits, dim=1)
        return logits


def write_package(
    folder: Path,
    content: bytes,
    *,
    weights: str,
    file: str = "weights.bin",
    labels: int = 2,
    expected: str = "",
    task: str = "",
    more: str = "",
    names: tuple[str, ...] = (),
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(content)
    card = CARD.format(
        file=file, sha256=hashlib.sha256(content).hexdigest(), weights=weights, input=expected, task=task
    )
    for name in names or tuple(f"label {index}" for index in range(labels)):
        card += LABEL.format(name=name, more=more)
    (folder / "model.toml").write_text(card)
    return folder


def scripted(network: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network.eval()), buffer)
    return buffer.getvalue()


def exported(network: nn.Module, batch: int = 2, *, dynamic: bool = True) -> bytes:
    buffer = io.BytesIO()
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network.eval(), (torch.zeros(batch, 1, 32, 32),), dynamic_shapes=shapes)
        torch.export.save(program, buffer)
    return buffer.getvalue()


def onnx_bytes(network: nn.Module, *, dynamic: bool = True) -> bytes:
    pytest.importorskip("onnx", reason="writing ONNX needs the onnx package")
    return onnx_of(network, torch.zeros(1, 1, 32, 32), fixed_batch=not dynamic)


def answers_alike(package: Path, network: nn.Module) -> None:
    classifier = load_package(package, CPU)
    batch = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.eval()(batch)
    assert torch.allclose(classifier.exact_logits(batch), expected, atol=1e-5)
    assert torch.allclose(classifier.logits(batch), expected, atol=1e-2)


def test_torchscript_answers_as_its_source_does(tmp_path: Path) -> None:
    network = Stranger()
    package = write_package(tmp_path / "p", scripted(network), weights='format = "torchscript"\ntrusted = true')
    answers_alike(package, network)
    assert load_package(package, CPU).network is not None


def test_torch_export_answers_as_its_source_does(tmp_path: Path) -> None:
    network = Stranger()
    package = write_package(tmp_path / "p", exported(network), weights='format = "torch-export"\ntrusted = true')
    answers_alike(package, network)


@pytest.mark.parametrize("dynamic", [True, False])
def test_onnx_answers_as_its_source_does_and_names_its_provider(tmp_path: Path, dynamic: bool) -> None:
    network = Stranger()
    package = write_package(tmp_path / "p", onnx_bytes(network, dynamic=dynamic), weights='format = "onnx"')
    answers_alike(package, network)
    classifier = load_package(package, CPU)
    assert classifier.network is None
    assert classifier.reference is not None
    assert classifier.reference.provider == "CPUExecutionProvider"


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


def test_a_monai_bundle_is_checked_against_its_metadata(tmp_path: Path) -> None:
    network = Stranger()
    kind = 'format = "monai-bundle"\ntrusted = true'
    package = write_package(tmp_path / "p", scripted(network), weights=kind, file="models/model.ts")
    with pytest.raises(ModelError, match=r"metadata\.json"):
        load_package(package, CPU)
    (package / "configs").mkdir()
    described = {
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1, "spatial_shape": [32, "16*n"]}},
            "outputs": {"pred": {"num_channels": 2}},
        }
    }
    metadata = package / "configs" / "metadata.json"
    metadata.write_text(json.dumps(described))
    answers_alike(package, network)
    described["network_data_format"]["outputs"]["pred"]["num_channels"] = 3
    metadata.write_text(json.dumps(described))
    with pytest.raises(ModelError, match="3 outputs"):
        load_package(package, CPU)
    described["network_data_format"]["inputs"]["image"]["num_channels"] = 3
    metadata.write_text(json.dumps(described))
    with pytest.raises(ModelError, match="3 channels"):
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


def test_a_state_dict_of_torchvision_loads_with_three_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_graph("resnet18", labels=2, channels=3)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    package = write_package(
        tmp_path / "p",
        buffer.getvalue(),
        weights='format = "state-dict"\ngraph = "resnet18"\ncam_layer = "layer4"',
        expected='channels = 3\nnormalization = "fixed"\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]',
    )
    classifier = load_package(package, CPU)
    assert classifier.network is not None
    assert all(
        torch.equal(a, b)
        for a, b in zip(classifier.network.state_dict().values(), network.state_dict().values(), strict=True)
    )


def test_torchxrayvision_weights_load_with_their_names_and_their_scaling(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_graph("densenet121", labels=18)
    tensors = network.state_dict() | {"op_threshs": torch.full((18,), 0.1)}
    old = {k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v.clone() for k, v in tensors.items()}
    package = write_package(
        tmp_path / "p",
        save(old),
        weights='format = "torchxrayvision"\ncam_layer = "features"',
        expected='normalization = "torchxrayvision"\nfit = "centre-crop"',
        names=XRV_PATHOLOGIES,
        more="op_norm = 0.1",
    )
    classifier = load_package(package, CPU)
    logits = torch.full((1, 18), float(np.log(0.1 / 0.9)))
    assert classifier.probabilities(logits) == pytest.approx(np.full((1, 18), 0.5))
    assert len(classifier.card.labels) == 18


def test_op_norm_is_centred_on_the_threshold() -> None:
    scores = op_norm(np.array([0.0, 0.05, 0.1, 0.55, 1.0]), 0.1)
    assert scores == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(("ends", "task"), [("sigmoid", "multi-label"), ("softmax", "multi-class")])
def test_a_network_that_ends_in_probabilities_is_taken_back_to_logits(tmp_path: Path, ends: str, task: str) -> None:
    network = Stranger(labels=3, ends=ends)
    package = write_package(
        tmp_path / "p",
        scripted(network),
        weights='format = "torchscript"\ntrusted = true\noutput = "probabilities"',
        labels=3,
        task=f'task = "{task}"',
    )
    classifier = load_package(package, CPU)
    batch = torch.randn(2, 1, 32, 32)
    found = classifier.probabilities(classifier.logits(batch))
    assert found == pytest.approx(network(batch).detach().numpy(), abs=1e-4)


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


def test_a_probability_near_an_operating_point_is_decided_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_graph("resnet18", labels=2)
    package = write_package(
        tmp_path / "p", save(network.state_dict()), weights='format = "safetensors"\ngraph = "resnet18"'
    )
    classifier = load_package(package, CPU)

    class Off:
        name, precision, provider = "off", "float32", "cpu"

        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[4.0, -4.0], [4.0, 0.03], [4.0, float("inf")]])[: len(batch)]

    classifier.fast = Off()
    batch = torch.randn(3, 1, 32, 32)
    found = classifier.logits(batch)
    assert found[0].tolist() == [4.0, -4.0]
    assert torch.equal(found[1:], classifier.exact_logits(batch[1:]))


def test_pooling_over_slices_lies_between_mean_and_maximum() -> None:
    logits = np.array([[-3.0], [2.0], [1.0], [-1.0]])
    assert pooled(logits, "max", top_k=2, sharpness=1.0) == pytest.approx(2.0)
    assert pooled(logits, "top-k-mean", top_k=2, sharpness=1.0) == pytest.approx(1.5)
    soft = float(pooled(logits, "attention", top_k=2, sharpness=1.0)[0, 0])
    assert logits.mean() < soft < 2.0
    assert float(pooled(logits, "attention", top_k=2, sharpness=50.0)[0, 0]) == pytest.approx(2.0, abs=1e-6)
