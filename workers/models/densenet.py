"""DenseNet-121 (Huang et al. 2016, arXiv:1608.06993) with the names of published weights.

torchvision and torchxrayvision use the same state-dict names; torchxrayvision's has one grey channel and 18
labels.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

GROWTH = 32
BLOCKS = (6, 12, 24, 16)
BOTTLENECK = 4

UNRECTIFIED = frozenset({"features", "features.norm5"})
"""Layers whose output goes through the last ReLU: no class activation maps of them."""


class DenseLayer(nn.Module):
    """Adds `GROWTH` channels to all that came before it."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, BOTTLENECK * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * GROWTH)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(BOTTLENECK * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (batch, inputs + GROWTH, rows, columns)."""
        new = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))
        return torch.cat([x, new], dim=1)


class DenseNet121(nn.Module):
    """Input (batch, channels, rows, columns); `features` gives 1/32 of it; output logits."""

    def __init__(self, labels: int = 1, channels: int = 1) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(64),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        inputs = 64
        for number, depth in enumerate(BLOCKS, start=1):
            parts[f"denseblock{number}"] = _dense_block(inputs, depth)
            inputs += depth * GROWTH
            if number < len(BLOCKS):
                parts[f"transition{number}"] = _transition(inputs)
                inputs //= 2
        parts["norm5"] = nn.BatchNorm2d(inputs)
        self.features = nn.Sequential(parts)
        self.relu = nn.ReLU()
        self.classifier = nn.Linear(inputs, labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, labels)."""
        logits: torch.Tensor = self.classifier(self.relu(self.features(x)).mean(dim=(2, 3)))
        return logits


def _dense_block(inputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"denselayer{n + 1}", DenseLayer(inputs + n * GROWTH)) for n in range(depth)))


def _transition(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(),
            conv=nn.Conv2d(inputs, inputs // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, stride=2),
        )
    )
