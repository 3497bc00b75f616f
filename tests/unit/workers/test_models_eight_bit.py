from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from service.settings import packaged_config
from workers.models.eight_bit import EightBitCopy
from workers.models.graphs import build_graph
from workers.models.package import load_package
from workers.phantom.film import make_phantom
from workers.preprocess import standardize


def trained_like(graph: str) -> nn.Module:
    """Return a network whose batch norms have statistics of its own activations."""
    torch.manual_seed(0)
    network = build_graph(graph, labels=2, channels=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.weight.data.uniform_(0.5, 1.0)
    network.train()
    with torch.no_grad():
        network(inputs(16))
    return network.eval()


def inputs(count: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand((count, 1, 12, 12), generator=torch.Generator().manual_seed(seed))
    return 3 * nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear") - 1.5


@pytest.mark.parametrize("graph", ["resnet-compact", "resnet18"])
def test_bytes_answer_nearly_as_the_network_does(graph: str) -> None:
    network, films = trained_like(graph), inputs(12, seed=1)
    # Random weights amplify rounding; wrong arithmetic would scatter by 1 and more.
    assert scatter(network, films, inputs(6, seed=2)) < 0.5


@pytest.mark.parametrize("name", ["pneumonia-compact", "pneumonia-resnet50"])
def test_bytes_answer_nearly_as_the_shipped_networks_do(name: str) -> None:
    network = load_package(packaged_config() / "models" / name, torch.device("cpu")).network
    assert network is not None
    pixels = make_phantom(3, (224, 224), opacities=2).pixels.astype(np.float32) / 4095
    film = standardize(torch.from_numpy(pixels)[None, None])
    coarse = torch.rand((20, 1, 8, 8), generator=torch.Generator().manual_seed(0)) > 0.5
    shown = nn.functional.interpolate(coarse.float(), size=(224, 224)) > 0
    films = torch.where(shown, film, film.quantile(0.2))
    assert scatter(network, films[:12], films[12:]) < 0.2


def scatter(network: nn.Module, films: torch.Tensor, examples: torch.Tensor) -> float:
    """Return how far the copy's answers scatter around the network's, as a share of how far those scatter."""
    with torch.inference_mode():
        exact = network(films)
        found = EightBitCopy(network, examples)(films)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    return float(((found - exact).std(dim=0) / exact.std(dim=0)).max())


def test_scales_fit_what_they_were_calibrated_on() -> None:
    network, films = trained_like("resnet-compact"), inputs(8, seed=3)
    copied = EightBitCopy(network, 0.1 * films)
    with torch.inference_mode():
        exact = network(films)
        cut_off = float((copied(films) - exact).abs().mean())
        copied.calibrate(films)
        fitted = float((copied(films) - exact).abs().mean())
    assert fitted < 0.5 * cut_off


def test_answers_do_not_depend_on_the_images_before() -> None:
    network, films = trained_like("resnet-compact"), inputs(8, seed=5)
    fresh, used = EightBitCopy(network, films), EightBitCopy(network, 0.01 * inputs(8, seed=6).abs())
    used.calibrate(films)
    with torch.inference_mode():
        assert torch.equal(used(films), fresh(films))


def test_the_network_itself_stays_as_it_was() -> None:
    network, films = trained_like("resnet-compact"), inputs(4, seed=4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    EightBitCopy(network, films)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class _Twice(nn.Module):
    """Uses what went into a sum once more after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.relu1(self.first(x))
        summed = self.relu2(self.second(before) + before)
        result: torch.Tensor = (summed.mean(dim=(2, 3)) + before.mean(dim=(2, 3)))[:, :1]
        return result


class _Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x).mean(dim=(2, 3, 4))
        return result


class _Branching(nn.Module):
    """Cannot be traced: what it does depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x if x.sum() > 0 else -x).mean(dim=(2, 3))
        return result


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (_Twice(), (2, 8, 16, 16)),
        (_Volume(), (2, 1, 8, 16, 16)),
        (_Branching(), (2, 8, 16, 16)),
        (build_graph("densenet121", labels=1, channels=1), (2, 1, 64, 64)),
    ],
    ids=["value used after its sum", "volume", "not traceable", "densenet"],
)
def test_networks_that_bytes_cannot_compute_are_refused(network: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NotImplementedError):
        EightBitCopy(network.eval(), torch.rand(shape))
