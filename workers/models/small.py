"""`slice-net` and `volume-net`: two very small networks for the demonstration models of CT and MR series.

Plain convolutions with batch norm, global average pooling and one linear layer, so that class activation maps are
exact (Zhou et al. 2016, arXiv:1512.04150), and a last feature map fine enough to point at a small lesion.
"""

from __future__ import annotations

import torch
from torch import nn

SLICE_WIDTHS = (16, 24, 32, 48)
VOLUME_WIDTHS = (8, 16, 24, 32)


class SliceNet(nn.Module):
    """Input (batch, 1, rows, columns); `features` gives a quarter of it each way; output logits. 40,000 parameters."""

    def __init__(self, labels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for index, width in enumerate(SLICE_WIDTHS):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if index < 2:  # noqa: PLR2004 - two halvings
                layers.append(nn.AvgPool2d(2))
            inputs = width
        layers += [nn.Conv2d(inputs, inputs, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, labels)."""
        maps: torch.Tensor = self.features(x)
        logits: torch.Tensor = self.fc(maps.mean(dim=(2, 3)))
        return logits


class VolumeNet(nn.Module):
    """Input (batch, 1, slices, rows, columns); `features` gives a quarter of it in plane, half along; output logits."""

    def __init__(self, labels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        pools: tuple[tuple[int, int, int] | None, ...] = ((1, 2, 2), (2, 2, 2), None, None)
        for width, pool in zip(VOLUME_WIDTHS, pools, strict=True):
            layers += [nn.Conv3d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
            if pool:
                layers.append(nn.AvgPool3d(pool))
            inputs = width
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, labels)."""
        maps: torch.Tensor = self.features(x)
        logits: torch.Tensor = self.fc(maps.mean(dim=(2, 3, 4)))
        return logits
