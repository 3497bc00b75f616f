"""Whatever the format, a package answers as its network does."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from packages import CPU, Stranger, exported, onnx_bytes, scripted, write_package
from safetensors.torch import save
from torch import nn

from service.errors import ModelError
from workers.explainers.cam import GradCam, HiResCam
from workers.models.calibration import op_norm, pooled
from workers.models.graphs import build_graph
from workers.models.loaders import XRV_PATHOLOGIES
from workers.models.package import load_package

if TYPE_CHECKING:
    from pathlib import Path


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
        weights='format = "torchxrayvision"\ncam_layer = "relu"',
        expected='normalization = "torchxrayvision"\nfit = "centre-crop"',
        names=XRV_PATHOLOGIES,
        more="op_norm = 0.1",
    )
    classifier = load_package(package, CPU)
    # Behind the last ReLU comes a mean: there Grad-CAM is what each place adds, and HiResCAM the same.
    film = torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(1))
    grad_cam, hires = (method.explain(classifier, film, [3])[0].map for method in (GradCam(), HiResCam()))
    torch.testing.assert_close(grad_cam, hires, rtol=1e-4, atol=1e-6)
    card = (package / "model.toml").read_text()
    (package / "model.toml").write_text(card.replace('cam_layer = "relu"', 'cam_layer = "features"'))
    with pytest.raises(ModelError, match=r"lies before its last ReLU.*name 'relu'"):
        load_package(package, CPU)
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
