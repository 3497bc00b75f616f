"""`slice-net` and `volume-net`: two very small networks for the demonstration models of CT and MR series.

Plain convolutions with batch norm, and a last feature map fine enough to point at a small lesion. A linear layer
turns every place of it into a logit, and a soft maximum over the places (log-sum-exp, Pinheiro and Collobert 2015,
arXiv:1411.6228) is the answer: under an average a lesion of three cells would drown. The gradient of that maximum has
the same direction at every place, so Grad-CAM is the map of the places' logits, up to the bias.
"""

from __future__ import annotations

import torch
from torch import nn

SLICE_WIDTHS = (16, 24, 32, 48)
VOLUME_WIDTHS = (8, 16, 24, 32)
SOFTNESS = 4.0
"""Of the maximum: 0 would be the mean, infinity the largest place."""


class _Places(nn.Module):
    """What both networks share: a logit for every place of `features`, and their soft maximum."""

    features: nn.Sequential
    fc: nn.Linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, labels)."""
        return soft_maximum(self.places(x))

    def places(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logit of every place, shape (batch, places, labels), in the order of the axes of `features`."""
        logits: torch.Tensor = self.fc(self.features(x).flatten(2).transpose(1, 2))
        return logits


class SliceNet(_Places):
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


class VolumeNet(_Places):
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


def soft_maximum(places: torch.Tensor) -> torch.Tensor:
    """Return a soft maximum over the places, (batch, places, labels) to (batch, labels)."""
    # Of a mean, not a sum: the answer does not depend on how many places there are.
    largest = places.amax(dim=1, keepdim=True)
    powers = ((places - largest) * SOFTNESS).exp().mean(dim=1)
    return largest[:, 0] + powers.log() / SOFTNESS
