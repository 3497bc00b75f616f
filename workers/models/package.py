"""Model packages, loaded: a card, weights whose digest was checked, and a network in evaluation mode."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from service.errors import ModelError
from service.model_card import load_card
from workers.models.graphs import build_graph
from workers.preprocess import to_input, to_source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from service.model_card import ModelCard
    from service.types import Image


@dataclass(kw_only=True, eq=False)
class PackagedClassifier:
    """A `workers.interfaces.Classifier`: a graph written here with weights from safetensors."""

    card: ModelCard
    network: nn.Module
    device: torch.device

    def preprocess(self, image: Image) -> torch.Tensor:
        """Return the network's input, float32 of shape (1, 1, rows, columns) on `device`.

        Raises:
            NotEligibleError: the image is constant or holds values that are not finite.
        """
        return to_input(image.grey, self.card.input).to(self.device)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return raw logits, float32 of shape (batch, labels), without gradient.

        Raises:
            ModelError: the network answered with NaN or infinity.
        """
        with torch.inference_mode():
            logits: torch.Tensor = self.network(batch.to(self.device)).float()
        if not bool(torch.isfinite(logits).all()):
            raise ModelError(
                f"model '{self.card.name}' answered with values that are not finite; its weights are broken"
            )
        # Explainers must be able to use it beside tensors that need gradients.
        return logits.clone()

    def probabilities(self, logits: torch.Tensor) -> NDArray[np.float64]:
        """Return calibrated probabilities, shape (batch, labels): sigmoid(logit / temperature + bias)."""
        values = logits.detach().to("cpu", torch.float64).numpy()
        temperature = np.array([label.temperature for label in self.card.labels])
        bias = np.array([label.bias for label in self.card.labels])
        # Clipped, so that a confident logit neither overflows nor warns.
        probabilities: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(values / temperature + bias, -60.0, 60.0)))
        return probabilities

    def to_source(self, image: Image, attribution: torch.Tensor) -> NDArray[np.float32]:
        """Carry a map on the network's input grid (or any coarser grid over it) onto the source grid."""
        rows, columns = image.grey.shape
        return to_source(attribution, rows, columns)


def load_package(folder: Path, device: torch.device) -> PackagedClassifier:
    """Load the model package in `folder` onto `device`.

    Raises:
        SettingsError: `model.toml` is missing or wrong.
        ModelError: the weights are missing, altered, no safetensors, or do not fit the graph; a file whose
            digest differs is never parsed.
    """
    card = load_card(folder)
    network = build_graph(card.weights.graph, labels=len(card.labels))
    if card.weights.cam_layer not in dict(network.named_modules()):
        raise ModelError(f"{folder}: graph '{card.weights.graph}' has no layer '{card.weights.cam_layer}'")
    _fill(network, _tensors(folder, card), where=str(folder / card.weights.file))
    network.to(device=device, dtype=torch.float32).eval().requires_grad_(requires_grad=False)
    return PackagedClassifier(card=card, network=network, device=device)


def _tensors(folder: Path, card: ModelCard) -> dict[str, torch.Tensor]:
    path = folder / card.weights.file
    if path.parent.resolve() != folder.resolve():
        raise ModelError(f"{folder}: the weights file must lie beside model.toml, not at '{card.weights.file}'")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); restore it from where the package came") from None
    found = hashlib.sha256(content).hexdigest()
    if found != card.weights.sha256:
        raise ModelError(
            f"{path}: sha256 is {found}, model.toml says {card.weights.sha256}; the file was altered "
            "or cut off: restore it, or correct [weights] sha256 if you replaced it on purpose"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise ModelError(f"{path}: no safetensors file ({error})") from None


def _fill(network: nn.Module, tensors: dict[str, torch.Tensor], *, where: str) -> None:
    expected = network.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    misshapen = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    for fault, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)):
        if names:
            raise ModelError(f"{where}: does not fit the graph; {len(names)} tensors {fault}, first '{names[0]}'")
    network.load_state_dict(tensors, strict=True)
