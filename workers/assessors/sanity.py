"""Sanity: a map that stays the same when the weights are replaced by chance explains the image, not the model.

Cascading randomisation after Adebayo et al. 2018 ("Sanity Checks for Saliency Maps", arXiv:1810.03292): from the
output backwards, one stage after the other is drawn anew, and the map is compared with the trained network's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from service.errors import UnsupportedMethodError
from workers.assessors.case import CELLS, correlation, on_grid, rank_correlation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from service.images import Image
    from service.model_card import ModelCard
    from workers.interfaces import Classifier, Explainer

STAGES = 4
"""Steps from the output to the first layer; each draws about the same number of layers anew."""
UNCHANGED = 0.7
"""Similarity to the trained network's map from which a map counts as unchanged once all weights are random."""
DRAWS = 3
"""Random networks whose similarities are averaged: one of them may resemble the trained one by chance."""


class NothingToCompareError(UnsupportedMethodError):
    """A map says nothing, so that randomisation can take nothing from it."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How alike the map is after one more stage was drawn anew; both are means over the random networks."""

    layers: str
    """First and last layer of all that is random by now."""
    similarity: float
    """Pearson's correlation of the positive parts on a grid of `CELLS` x `CELLS`."""
    rank_correlation: float
    """Spearman's, of the signed maps."""


@dataclass(frozen=True, kw_only=True)
class SanityCheck:
    """What randomisation does to one method's maps with one model."""

    method: str
    stages: tuple[Stage, ...]
    """From the output backwards; in the last one the whole network is random."""
    passed: bool

    @property
    def sentence(self) -> str:
        """Return the result in words."""
        last = self.stages[-1].similarity
        if self.passed:
            return f"{self.method}: the map depends on what the model learned (similarity {last:.2f} without it)"
        return f"{self.method}: the map stays alike when the model's weights are random (similarity {last:.2f})"


def check_sanity(
    classifier: Classifier, explainer: Explainer, batch: torch.Tensor, label: int, *, seed: int = 0
) -> SanityCheck:
    """Compare a method's map of one input with its maps when ever more of the network is random.

    The classifier and its network stay as they were: a copy is randomised.

    Args:
        classifier: the model.
        explainer: the method.
        batch: one preprocessed input, float32 (1, channels, rows, columns), best one with the finding.
        label: index into the card's labels.
        seed: of the random weights.

    Raises:
        UnsupportedMethodError: the model gives no weights (ONNX), or the method does not work with it.
        NothingToCompareError: the trained network's map marks nothing, or a map holds values that are not finite.
    """
    if classifier.network is None:
        raise UnsupportedMethodError(f"model '{classifier.card.name}' has no weights that could be drawn anew")
    before = _cells(explainer, classifier, batch, label)
    if before.max() <= max(before.min(), 0):
        raise NothingToCompareError("the map marks nothing on the probe")
    rows = [_cascade(classifier, explainer, batch, label, seed=seed + draw, before=before) for draw in range(DRAWS)]
    stages = tuple(
        Stage(
            layers=names[0].layers,
            similarity=sum(stage.similarity for stage in names) / DRAWS,
            rank_correlation=sum(stage.rank_correlation for stage in names) / DRAWS,
        )
        for names in zip(*rows, strict=True)
    )
    return SanityCheck(method=explainer.name, stages=stages, passed=stages[-1].similarity < UNCHANGED)


def _cascade(
    classifier: Classifier,
    explainer: Explainer,
    batch: torch.Tensor,
    label: int,
    *,
    seed: int,
    before: NDArray[np.float32],
) -> list[Stage]:
    network = copy.deepcopy(classifier.network)
    if network is None:  # said above; for the type checker
        return []
    generator = torch.Generator().manual_seed(seed)
    layers = _layers(network)
    found = []
    for stage in _stages(layers):
        for _, layer in stage:
            _draw_anew(layer, generator)
        after = _cells(explainer, Randomised(classifier, network), batch, label)
        found.append(
            Stage(
                layers=f"{stage[-1][0]} to {layers[-1][0]}",
                similarity=correlation(before, after),
                rank_correlation=rank_correlation(before, after),
            )
        )
    return found


class Randomised:
    """A `workers.interfaces.Classifier` with another network in place of the trained one."""

    def __init__(self, trained: Classifier, network: torch.nn.Module) -> None:
        self.card: ModelCard = trained.card
        self.device: torch.device = trained.device
        self.network: torch.nn.Module | None = network
        self._network = network
        self._trained = trained

    def preprocess(self, image: Image) -> torch.Tensor:
        """Return the network's input, as the trained model does."""
        return self._trained.preprocess(image)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the other network's logits."""
        with torch.no_grad():
            logits: torch.Tensor = self._network(batch.to(self.device)).float()
        return logits

    def probabilities(self, logits: torch.Tensor) -> NDArray[np.float64]:
        """Return probabilities by the trained model's calibration."""
        return self._trained.probabilities(logits)

    def to_source(self, image: Image, attribution: torch.Tensor) -> NDArray[np.float32]:
        """Carry a map onto the source grid, as the trained model does."""
        return self._trained.to_source(image, attribution)


def _cells(explainer: Explainer, classifier: Classifier, batch: torch.Tensor, label: int) -> NDArray[np.float32]:
    (explanation,) = explainer.explain(classifier, batch, [label])
    if not bool(torch.isfinite(explanation.map).all()):
        raise NothingToCompareError("a map holds values that are not finite")
    return on_grid(explanation.map, CELLS, CELLS)


def _layers(network: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Return the layers that hold weights themselves, in the order of the graph."""
    return [
        (name, module)
        for name, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]


def _stages(layers: Sequence[tuple[str, torch.nn.Module]]) -> list[list[tuple[str, torch.nn.Module]]]:
    """Split the layers, last first: the output layer alone, then the rest in about equal parts."""
    behind = list(reversed(layers))
    head, rest = behind[:1], behind[1:]
    size = max(1, -(-len(rest) // (STAGES - 1)))
    return [head, *(rest[start : start + size] for start in range(0, len(rest), size))]


def _draw_anew(layer: torch.nn.Module, generator: torch.Generator) -> None:
    """Replace each parameter by normal values of the same mean and deviation: the scale stays, what it learned goes."""
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            deviation = parameter.std() if parameter.numel() > 1 else parameter.abs()
            parameter.copy_(parameter.mean() + deviation * noise)
