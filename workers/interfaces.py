"""The ports of the worker: what a classifier and an explainer promise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from service.images import Image
    from service.model_card import ModelCard
    from service.results import Measure


class Classifier(Protocol):
    """A model package, loaded."""

    card: ModelCard
    device: torch.device

    @property
    def network(self) -> torch.nn.Module | None:
        """The graph, in evaluation mode, float32, on `device`, its parameters without gradients.

        Its output is logits of shape (batch, labels). None when the runtime gives no gradients (ONNX).
        """

    def preprocess(self, image: Image) -> torch.Tensor:
        """Return the network's input, float32 of shape (1, channels, rows, columns) on `device`."""

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return raw logits, float32 of shape (batch, labels), without gradient, by the fastest safe runtime."""

    def probabilities(self, logits: torch.Tensor) -> NDArray[np.float64]:
        """Return calibrated probabilities, shape (batch, labels)."""

    def to_source(self, image: Image, attribution: torch.Tensor) -> NDArray[np.float32]:
        """Carry a map on the network's input grid back onto the source grid, (rows, columns), float32."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """How much each place of a network's input moved one logit."""

    label: int
    """Index into the card's labels."""
    map: torch.Tensor
    """Float32 on the CPU, signed: positive raised the logit. Spatial shape of the input, (rows, columns) or (slices,
    rows, columns), or a coarser regular grid over the same extent, as a class activation map is."""
    parameters: Mapping[str, str]
    seconds: float
    measures: tuple[Measure, ...] = field(default=())
    """What the method says of itself: convergence delta, conservation, samples used, interval."""


class Explainer(Protocol):
    """One explanation method. Deterministic under its seed; the network stays as it was; no hook outlives a call."""

    name: str
    title: str
    cost: int
    """Forward passes that one label takes, roughly; cheap methods run first."""

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label for one input.

        Args:
            classifier: the model.
            batch: one preprocessed input, float32 (1, channels, rows, columns) or (1, channels, slices, rows,
                columns), on the classifier's device.
            labels: indices into the card's labels.

        Raises:
            UnsupportedMethodError: the model lacks what the method needs; the message says what.
        """
