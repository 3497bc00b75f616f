"""A model whose reasons are known - bright places, nothing else - and explainers that tell them well, badly or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from white_box import classifier

from service.errors import ModelError, UnsupportedMethodError
from workers.interfaces import Explanation
from workers.models.package import PackagedClassifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workers.interfaces import Classifier

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
        result: torch.Tensor = self.fc(self.features(batch).flatten(2).mean(dim=2))
        return result


class BrightBalls(BrightSpots):
    """The same of a volume."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv3d(1, 1, 1)
        with torch.no_grad():
            convolution.weight.fill_(1.0)
            convolution.bias.fill_(-1.0)  # type: ignore[union-attr]
        self.features = nn.Sequential(convolution, nn.ReLU())


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

    def draw(self, film: torch.Tensor) -> torch.Tensor:
        corner = torch.zeros((14,) * (film.ndim - 2))
        corner[..., :3, :3] = 1.0
        return corner


class Fickle(Telling):
    """Marks other places at every call."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:
        return torch.rand((14,) * (film.ndim - 2), generator=torch.Generator().manual_seed(self.calls))


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


class Lost(Telling):
    """Was told of a layer that this network does not have."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        raise ModelError("model 'spots' has no layer 'layer9'")


class Strange(Telling):
    """Meets a network that cannot be run backwards."""

    def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        raise RuntimeError("no backward pass of this program")


def bright_spots() -> PackagedClassifier:
    """Return the model as a loaded package."""
    network = BrightSpots().eval().requires_grad_(requires_grad=False)
    return classifier(network, side=SIDE, labels=("Bright spot",))


def bright_balls() -> PackagedClassifier:
    """Return the same model for volumes of 12 slices."""
    flat = bright_spots()
    expected = flat.card.input.model_copy(update={"slices": 12})
    network = BrightBalls().eval().requires_grad_(requires_grad=False)
    card = flat.card.model_copy(update={"input": expected})
    return PackagedClassifier(card=card, network=network, device=CPU)


def volume_with_ball() -> torch.Tensor:
    """Return a noisy volume with a bright ball, as a network's input of mean 0 and deviation 1."""
    noise = torch.randn((1, 1, 12, SIDE, SIDE), generator=torch.Generator().manual_seed(7))
    slices, rows, columns = torch.meshgrid(*(torch.arange(n) for n in (12, SIDE, SIDE)), indexing="ij")
    ball = (6 * (slices - 5)) ** 2 + (rows - 70) ** 2 + (columns - 40) ** 2 < 20**2
    volume = 0.3 * noise + 12 * ball
    return (volume - volume.mean()) / volume.std()


def film_with_spot(*, spot: bool = True) -> NDArray[np.float32]:
    """Return a noisy grey film with a bright disc away from the corners, or without."""
    rng = np.random.default_rng(7)
    grey = (0.35 + 0.04 * rng.standard_normal((SIDE, SIDE))).astype(np.float32)
    row, column = np.mgrid[:SIDE, :SIDE]
    if spot:
        grey[(row - 70) ** 2 + (column - 40) ** 2 < 14**2] += 0.4
    return np.clip(grey, 0, 1)
