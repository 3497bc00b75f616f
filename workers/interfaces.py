"""The ports of the worker: what a classifier and an explainer promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from service.model_card import ModelCard
    from service.types import Attribution, Image


class Classifier(Protocol):
    """A model package, loaded."""

    card: ModelCard
    network: torch.nn.Module
    """In evaluation mode, float32, on `device`; output is logits of shape (batch, labels)."""
    device: torch.device

    def preprocess(self, image: Image) -> torch.Tensor:
        """Return the network's input, float32 of shape (1, 1, rows, columns) on `device`."""

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return raw logits, float32 of shape (batch, labels), without gradient."""

    def probabilities(self, logits: torch.Tensor) -> NDArray[np.float64]:
        """Return calibrated probabilities, shape (batch, labels)."""

    def to_source(self, image: Image, attribution: torch.Tensor) -> NDArray[np.float32]:
        """Carry a map on the network's input grid back onto the source grid, (rows, columns), float32."""


class Explainer(Protocol):
    """One explanation method. Deterministic; leaves the network as it was; hooks never outlive the call."""

    name: str
    title: str

    def explain(self, classifier: Classifier, image: Image, labels: Sequence[int]) -> list[Attribution]:
        """Explain each label (index into the card's labels) for one image."""
