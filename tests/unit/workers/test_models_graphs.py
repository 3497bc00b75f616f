"""Published weights fit the graphs: names and shapes as torchvision and torchxrayvision lay them out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from service.errors import ModelError
from workers.models.compact import CompactResNet
from workers.models.densenet import DenseNet121
from workers.models.graphs import build_graph
from workers.models.resnet import resnet18, resnet34, resnet50

Shape = tuple[int, ...]


def batch_norm(name: str, channels: int) -> dict[str, Shape]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in names} | {f"{name}.num_batches_tracked": ()}


def resnet_layout(depths: tuple[int, ...], *, bottleneck: bool) -> dict[str, Shape]:
    layout: dict[str, Shape] = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
    inputs = 64
    for stage, depth in enumerate(depths, start=1):
        width = 64 * 2 ** (stage - 1)
        outputs = width * 4 if bottleneck else width
        for index in range(depth):
            at = f"layer{stage}.{index}"
            if bottleneck:
                convolutions = [(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
            else:
                convolutions = [(inputs, width, 3), (width, width, 3)]
            for number, (before, after, size) in enumerate(convolutions, start=1):
                layout[f"{at}.conv{number}.weight"] = (after, before, size, size)
                layout |= batch_norm(f"{at}.bn{number}", after)
            if index == 0 and (stage > 1 or bottleneck):
                layout[f"{at}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                layout |= batch_norm(f"{at}.downsample.1", outputs)
            inputs = outputs
    return layout | {"fc.weight": (1000, inputs), "fc.bias": (1000,)}


def densenet_layout(channels: int, labels: int) -> dict[str, Shape]:
    layout: dict[str, Shape] = {"features.conv0.weight": (64, channels, 7, 7), **batch_norm("features.norm0", 64)}
    width = 64
    for block, depth in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, depth + 1):
            at = f"features.denseblock{block}.denselayer{layer}"
            layout |= batch_norm(f"{at}.norm1", width) | batch_norm(f"{at}.norm2", 128)
            layout |= {f"{at}.conv1.weight": (128, width, 1, 1), f"{at}.conv2.weight": (32, 128, 3, 3)}
            width += 32
        if block < 4:
            layout |= batch_norm(f"features.transition{block}.norm", width)
            layout[f"features.transition{block}.conv.weight"] = (width // 2, width, 1, 1)
            width //= 2
    layout |= batch_norm("features.norm5", width)
    return layout | {"classifier.weight": (labels, width), "classifier.bias": (labels,)}


def layout_of(network: nn.Module) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_resnets_have_the_names_and_shapes_of_torchvision() -> None:
    assert layout_of(resnet18(1000, 3)) == resnet_layout((2, 2, 2, 2), bottleneck=False)
    assert layout_of(resnet34(1000, 3)) == resnet_layout((3, 4, 6, 3), bottleneck=False)
    assert layout_of(resnet50(1000, 3)) == resnet_layout((3, 4, 6, 3), bottleneck=True)


def test_resnets_have_the_published_numbers_of_parameters() -> None:
    assert parameters(resnet18(1000, 3)) == 11_689_512
    assert parameters(resnet34(1000, 3)) == 21_797_672
    assert parameters(resnet50(1000, 3)) == 25_557_032


def test_densenet_has_the_names_and_shapes_of_torchvision_and_torchxrayvision() -> None:
    torchvision = DenseNet121(1000, 3)
    assert layout_of(torchvision) == densenet_layout(3, 1000)
    assert parameters(torchvision) == 7_978_856
    assert layout_of(DenseNet121(18, 1)) == densenet_layout(1, 18)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_large_graphs_answer_with_one_logit_per_label(name: str) -> None:
    network = build_graph(name, labels=2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 2)


def test_compact_network_is_small_and_its_last_map_is_fine() -> None:
    network = CompactResNet().eval()
    with torch.inference_mode():
        maps = network.features(network.stem(torch.zeros(1, 1, 224, 224)))
    assert tuple(maps.shape[-2:]) == (14, 14)
    assert sum(tensor.numel() for tensor in network.state_dict().values()) * 2 < 12_000_000


def test_class_activation_map_of_the_compact_network_is_exact() -> None:
    torch.manual_seed(3)
    network = CompactResNet().eval()
    film = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        maps = network.features(network.stem(film))
        activation = torch.einsum("c,bcij->bij", network.fc.weight[0], maps)
        logit = network(film)
    assert torch.allclose(activation.mean(dim=(1, 2)) + network.fc.bias, logit[:, 0], atol=1e-5)


def test_unknown_graph_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ModelError, match="did you mean 'resnet50'"):
        build_graph("resnet-50", labels=1)
