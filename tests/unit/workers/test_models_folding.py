"""Folding changes speed, never answers, and leaves the network alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from workers.models.folding import cpu_flags, fast_dtype, fold_batch_norm, inference_copy
from workers.models.graphs import build_graph

if TYPE_CHECKING:
    from pathlib import Path


def _with_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm statistics that a trained network could have: 0 and 1 would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.6, 1.4, generator=generator)
            module.bias.data.normal_(0.0, 0.2, generator=generator)
    return network.eval()


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in network.modules())


@pytest.mark.parametrize(
    ("graph", "left"), [("resnet-compact", 0), ("resnet18", 0), ("resnet50", 0), ("densenet121", 62)]
)
def test_a_folded_copy_answers_as_the_network_does(graph: str, left: int) -> None:
    torch.manual_seed(0)
    network = _with_statistics(build_graph(graph, labels=3))
    batch = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(batch)
        folded = inference_copy(network)
        found = folded(batch)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    # A norm before its convolution (DenseNet's first of each pair) has a ReLU in between and must stay.
    assert _norms(folded) == left


def test_the_network_itself_stays_as_it_was() -> None:
    network = _with_statistics(build_graph("resnet18", labels=1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = [name for name, _ in network.named_modules()]
    inference_copy(network, torch.bfloat16)
    assert [name for name, _ in network.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_layer_that_two_see_is_not_folded() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return (self.norm(y) + y).mean(dim=(2, 3))

    network = _with_statistics(Shared())
    folded = fold_batch_norm(network)
    batch = torch.randn(1, 1, 8, 8)
    assert _norms(folded) == 1
    assert torch.allclose(folded(batch), network(batch), atol=1e-6)


def test_a_network_that_cannot_be_traced_is_copied_unfolded() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.norm(self.conv(x))
            return y.mean(dim=(2, 3)) if float(y.sum()) > 0 else y.amax(dim=(2, 3))

    network = _with_statistics(Branching()).requires_grad_(requires_grad=False)
    batch = torch.randn(1, 1, 8, 8)
    assert torch.allclose(inference_copy(network)(batch), network(batch), atol=1e-5)


def test_three_dimensional_networks_are_folded_too() -> None:
    network = _with_statistics(
        nn.Sequential(
            nn.Conv3d(1, 4, 3, bias=False), nn.BatchNorm3d(4), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()
        )
    )
    batch = torch.randn(2, 1, 6, 8, 8)
    folded = inference_copy(network)
    assert _norms(folded) == 0
    assert torch.allclose(folded(batch), network(batch), atol=1e-5)


def test_bfloat16_stays_near_float32() -> None:
    torch.manual_seed(0)
    network = _with_statistics(build_graph("resnet-compact", labels=1))
    batch = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = network(batch), inference_copy(network, torch.bfloat16)(batch)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max().clamp_min(1.0)))


def test_bfloat16_is_chosen_only_where_the_processor_has_it(tmp_path: Path) -> None:
    with_it, without = tmp_path / "with", tmp_path / "without"
    with_it.write_text("processor : 0\nflags : fpu avx512f avx512_bf16\n")
    without.write_text("processor : 0\nflags : fpu avx2\n")
    assert "avx512_bf16" in cpu_flags(with_it)
    assert "avx512_bf16" not in cpu_flags(without)
    assert cpu_flags(tmp_path / "missing") == frozenset()
    assert fast_dtype(torch.device("cpu")) in {torch.float32, torch.bfloat16}
    assert fast_dtype(torch.device("meta")) == torch.float32
