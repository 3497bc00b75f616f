"""Small networks with gradients, and classifiers around them; for the tests of explainers that look inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from service.model_card import CodeEntry, Input, Label, ModelCard, OperatingPointEntry, Training, Weights
from workers.models.package import PackagedClassifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIDE = 16
LABELS = ("Pneumonia", "Effusion", "Nodule")


class Plain(nn.Sequential):
    """Convolutions, ReLUs and linear layers, nothing in between that libraries stumble over; three labels.

    Args:
        axes: 2 for films, 3 for volumes.
        channels: of the input.
        bias: of every layer.
        maximum: pool by the largest value, else by the mean.
    """

    def __init__(self, *, axes: int = 2, channels: int = 1, bias: bool = True, maximum: bool = False) -> None:
        convolution = nn.Conv2d if axes == 2 else nn.Conv3d
        largest = nn.MaxPool2d if axes == 2 else nn.MaxPool3d
        mean = nn.AvgPool2d if axes == 2 else nn.AvgPool3d
        super().__init__(
            convolution(channels, 6, 3, padding=1, bias=bias),
            nn.ReLU(),
            largest(2) if maximum else mean(2),
            convolution(6, 8, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * (SIDE // 2) ** axes, 10, bias=bias),
            nn.ReLU(),
            nn.Linear(10, len(LABELS), bias=bias),
        )
        drawn(self, seed=1)


class Pooled(nn.Module):
    """Residual, dense and normalised, without any place of its own: what turns its input turns its maps.

    Args:
        axes: 2 for films, 3 for volumes.
        channels: of the input.
        symmetric: make every kernel equal to its mirror images and quarter turns.
    """

    def __init__(self, *, axes: int = 2, channels: int = 1, symmetric: bool = False) -> None:
        super().__init__()
        convolution = nn.Conv2d if axes == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if axes == 2 else nn.BatchNorm3d
        self.axes = axes
        self.conv1 = convolution(channels, 6, 3, padding=1, bias=False)
        self.norm1 = norm(6)
        self.relu1 = nn.ReLU()
        self.norm2 = norm(6)
        self.relu2 = nn.ReLU()
        self.conv2 = convolution(6, 6, 3, padding=1, bias=False)
        self.norm3 = norm(6)
        self.relu3 = nn.ReLU()
        self.conv3 = convolution(12, 6, 1)
        self.features = nn.ReLU()
        self.head = nn.Linear(6, len(LABELS))
        drawn(self, seed=2)
        if symmetric:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.copy_(_symmetric(module.weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.relu1(self.norm1(self.conv1(x)))
        after = self.relu3(self.norm3(self.conv2(self.relu2(self.norm2(before)))) + before)
        maps = self.features(self.conv3(torch.cat([before, after], dim=1)))
        logits: torch.Tensor = self.head(maps.mean(dim=tuple(range(2, 2 + self.axes))))
        return logits


class Gated(nn.Module):
    """A map times its own sigmoid: an operation that no rule of ours goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.conv(x)
        return (maps * torch.sigmoid(maps)).mean(dim=(2, 3))


def drawn(network: nn.Module, seed: int) -> nn.Module:
    """Give a network random weights and random batch-norm statistics, and make it ready to be explained."""
    generator = torch.Generator().manual_seed(seed)
    network.eval().requires_grad_(requires_grad=False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            spread = (2.0 / module.weight[0].numel()) ** 0.5
            module.weight.normal_(0.0, spread, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0.0, 0.1, generator=generator)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.uniform_(0.6, 1.4, generator=generator)
            module.bias.normal_(0.0, 0.2, generator=generator)
    return network


def classifier(
    network: nn.Module | None, cam_layer: str = "features", *, side: int = SIDE, labels: Sequence[str] = LABELS
) -> PackagedClassifier:
    """Return a classifier around a network; its card says of the input only how large it is."""
    point = OperatingPointEntry(name="balanced", threshold=0.5, sensitivity=1, specificity=1)
    card = ModelCard(
        name="small",
        title="Small",
        version="1",
        manufacturer="Pellucid",
        intended_use="tests",
        limits="tests",
        weights=Weights(file="w", sha256="0" * 64, graph="small", cam_layer=cam_layer),
        input=Input(rows=side, columns=side),
        labels=tuple(
            Label(
                name=name,
                code=CodeEntry(value="1", scheme="SCT", meaning=name),
                operating_point="balanced",
                operating_points=(point,),
            )
            for name in labels
        ),
        training=Training(data="none", licence="none", attribution="none"),
    )
    return PackagedClassifier(card=card, network=network, device=torch.device("cpu"))


def batch(*shape: int, seed: int = 0, positive: bool = False) -> torch.Tensor:
    """Return one random input, (1, channels, ...), by default (1, 1, SIDE, SIDE)."""
    size: Sequence[int] = shape or (1, SIDE, SIDE)
    values = torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))
    return values.abs() if positive else values


def at_most(limit: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    """Return a hook that runs out of memory when a layer sees more inputs at a time."""

    def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > limit:
            raise torch.OutOfMemoryError("out of memory, says the test")

    return hook


def _symmetric(weight: torch.Tensor) -> torch.Tensor:
    turned = [torch.rot90(weight, times, (2, 3)) for times in range(4)]
    return torch.stack([*turned, *(each.flip(3) for each in turned)]).mean(dim=0)
