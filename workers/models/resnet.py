"""ResNet-18, 34 and 50 (He et al. 2015, arXiv:1512.03385) with torchvision's state-dict names and shapes.

The stride of a bottleneck sits in its 3x3 convolution, as in torchvision's weights ("ResNet v1.5").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch

WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (batch, width, rows / stride, columns / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        result: torch.Tensor = self.relu2(inner + shortcut)
        return result


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; four times `width` channels come out."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu3 = nn.ReLU()
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (batch, 4 * width, rows / stride, columns / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))
        result: torch.Tensor = self.relu3(self.bn3(self.conv3(inner)) + shortcut)
        return result


class ResNet(nn.Module):
    """Input (batch, channels, rows, columns); output logits (batch, labels).

    `layer4` gives maps of 1/32 of the input, of 1/16 with `last_stride` 1: the same weights, a finer class activation.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, ...],
        labels: int = 1,
        channels: int = 1,
        last_stride: int = 2,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        strides = (1, 2, 2, last_stride)
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(inputs, width, strides[stage] if index == 0 else 1))
                inputs = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, labels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, labels)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(len(WIDTHS)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: torch.Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def resnet18(labels: int = 1, channels: int = 1) -> ResNet:
    """Return ResNet-18, 11.2 million parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), labels, channels)


def resnet34(labels: int = 1, channels: int = 1) -> ResNet:
    """Return ResNet-34, 21.3 million parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), labels, channels)


def resnet50(labels: int = 1, channels: int = 1) -> ResNet:
    """Return ResNet-50, 23.5 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), labels, channels)


def resnet50_fine(labels: int = 1, channels: int = 1) -> ResNet:
    """Return ResNet-50 whose last stage keeps the resolution: class activation on 14x14 for an input of 224x224."""
    return ResNet(Bottleneck, (3, 4, 6, 3), labels, channels, last_stride=1)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
