"""`resnet-compact`: a small residual network for one grey channel, with a fine last feature map.

Basic blocks and projection shortcuts after He et al. 2015 (arXiv:1512.03385); every stride is split into a
convolution and a blur, so that a shift of the film by a pixel moves the map by a pixel's worth and no more
(Zhang 2019, arXiv:1904.11486). Class activation maps of a network with global average pooling and one
linear layer are exact: the logit is the mean of the map plus the bias (Zhou et al. 2016, arXiv:1512.04150).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

WIDTHS = (32, 64, 128, 192)
STRIDES = (1, 2, 2, 1)
FINE_STRIDES = (1, 2, 1, 1)
BLOCKS = 2
STEM = 24


class Blur(nn.Module):
    """A 3x3 binomial filter with a stride, one channel at a time."""

    kernel: torch.Tensor

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride
        row = torch.tensor([0.25, 0.5, 0.25])
        kernel = (row[:, None] * row[None, :]).expand(channels, 1, 3, 3).contiguous()
        # Fixed by the graph, so no weights file carries it.
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (batch, channels, ceil(rows / stride), ceil(columns / stride))."""
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, self.kernel.to(x.dtype), stride=self.stride, groups=self.channels)


class CompactBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a stride is a blur before the first one."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.pool: nn.Module = Blur(inputs, stride) if stride > 1 else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (batch, outputs, rows / stride, columns / stride)."""
        x = self.pool(x)
        inner = self.relu1(self.bn1(self.conv1(x)))
        result: torch.Tensor = self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))
        return result


class CompactResNet(nn.Module):
    """Input (batch, 1, 224, 224) or near; `features` gives 14x14 maps of it; output logits.

    With `FINE_STRIDES` it is made for 128x128, of which `features` gives 16x16 maps.
    """

    def __init__(self, labels: int = 1, strides: tuple[int, ...] = STRIDES) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, STEM, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(STEM),
            nn.ReLU(),
            Blur(STEM, 2),
        )
        blocks: list[nn.Module] = []
        inputs = STEM
        for width, stride in zip(WIDTHS, strides, strict=True):
            for index in range(BLOCKS):
                blocks.append(CompactBlock(inputs, width, stride if index == 0 else 1))
                inputs = width
        self.features = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(inputs, labels)
        _initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, labels)."""
        maps: torch.Tensor = self.features(self.stem(x))
        logits: torch.Tensor = self.fc(self.dropout(maps.mean(dim=(2, 3))))
        return logits


def compact_fine(labels: int = 1) -> CompactResNet:
    """Return the network for small films: 1/8 of the input instead of 1/16."""
    return CompactResNet(labels, FINE_STRIDES)


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, CompactBlock):
            # Every block starts as its shortcut (Goyal et al. 2017, arXiv:1706.02677).
            nn.init.zeros_(module.bn2.weight)
