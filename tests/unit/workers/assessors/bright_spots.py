"""A model whose reasons are known - bright places, nothing else - and explainers that tell them well, badly or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from white_box import classifier

from service.errors import UnsupportedMethodError
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workers.interfaces import Classifier
    from workers.models.package import PackagedClassifier

SIDE = 112
CPU = torch.device("cpu")


class BrightSpots(nn.Module):
    """Logit: how much of the film is more than one deviation above its mean, times a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
        self.fc = nn.Linear(1, 1)
        with torch.no_grad():
            self.features[0].weight.fill_(1.0)
            self.features[0].bias.fill_(-1.0)
            self.fc.weight.fill_(60.0)
            self.fc.bias.fill_(-6.0)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(self.features(batch).mean(dim=(2, 3)))
        return result


class Telling:
    """An explainer for tests: `draw` makes the map of a batch."""

    def __init__(self, name: str, cost: int = 1) -> None:
        self.name = name
        self.title = name.title()
        self.cost = cost
        self.calls = 0

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        assert classifier.network is None or not classifier.network.training
        self.calls += 1
        drawn = self.draw(batch)
        return [Explanation(label=label, map=drawn, parameters={}, seconds=0.0) for label in labels]

    def draw(self, film: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Honest(Telling):
    """Marks what the model reads."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:
        return torch.relu(film[0, 0] - 1.0)


class Contrary(Telling):
    """Marks what the model does not read."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:
        return torch.relu(1.0 - film[0, 0])


class Fixed(Telling):
    """Marks the same corner whatever the film."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        corner = torch.zeros(14, 14)
        corner[:3, :3] = 1.0
        return corner


class Fickle(Telling):
    """Marks other places at every call."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return torch.rand(14, 14, generator=torch.Generator().manual_seed(self.calls))


class Against(Telling):
    """Finds nothing that speaks for the finding."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return -torch.ones(14, 14)


class Broken(Telling):
    """Divides by zero somewhere."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return torch.full((14, 14), float("nan"))


class Greedy(Telling):
    """Wants more memory than there is."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return torch.empty(2**55, dtype=torch.float32)


class Choosy(Telling):
    """Works with other models only."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        raise UnsupportedMethodError("it needs a model of another kind")


def bright_spots() -> PackagedClassifier:
    """Return the model as a loaded package."""
    network = BrightSpots().eval().requires_grad_(requires_grad=False)
    return classifier(network, side=SIDE, labels=("Bright spot",))


def film_with_spot(*, spot: bool = True) -> NDArray[np.float32]:
    """Return a noisy grey film with a bright disc away from the corners, or without."""
    rng = np.random.default_rng(7)
    grey = (0.35 + 0.04 * rng.standard_normal((SIDE, SIDE))).astype(np.float32)
    row, column = np.mgrid[:SIDE, :SIDE]
    if spot:
        grey[(row - 70) ** 2 + (column - 40) ** 2 < 14**2] += 0.4
    return np.clip(grey, 0, 1)
