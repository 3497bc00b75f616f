"""Networks whose explanations are known, and films for them; for the tests of explainers that ask and never look in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import white_box
from torch import nn

if TYPE_CHECKING:
    from service.model_card import ModelCard

ROWS, COLUMNS = 48, 64


class Smooth(nn.Module):
    """Convolution, batch norm and a head that is not linear; two labels; weights drawn from a seed."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = nn.Conv2d(1, 6, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6 * 12, 2)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        maps = self.relu(self.norm(self.first(batch)))
        logits: torch.Tensor = self.head(nn.functional.adaptive_avg_pool2d(maps, (3, 4)).flatten(1)).tanh() * 4
        return logits


class Spot(nn.Module):
    """Answers with ten times the mean over a window of the last two axes."""

    def __init__(self, top: int, left: int, size: int) -> None:
        super().__init__()
        self.rows, self.columns = slice(top, top + size), slice(left, left + size)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = 10 * batch[..., self.rows, self.columns].flatten(1).mean(dim=1, keepdim=True)
        return logits


@dataclass(kw_only=True, eq=False)
class Asked:
    """A classifier that answers and shows no graph, as one in ONNX does."""

    inside: nn.Module
    network: None = None
    card: ModelCard = field(default_factory=lambda: white_box.classifier(None).card)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = self.inside(batch)
        return result


def film(seed: int = 0) -> torch.Tensor:
    """Return a random image of patches with a little noise, (1, 1, ROWS, COLUMNS)."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(1, 1, 6, 8)).astype(np.float32))
    fine = nn.functional.interpolate(coarse, size=(ROWS, COLUMNS), mode="nearest")
    return fine + 0.1 * torch.from_numpy(rng.normal(size=(1, 1, ROWS, COLUMNS)).astype(np.float32))
