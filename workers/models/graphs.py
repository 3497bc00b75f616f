"""The graphs that a model package may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import ModelError
from service.validation import nearest
from workers.models.compact import CompactResNet
from workers.models.densenet import DenseNet121
from workers.models.resnet import resnet18, resnet34, resnet50, resnet50_fine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

GRAPHS: Mapping[str, Callable[[int], nn.Module]] = {
    "resnet-compact": CompactResNet,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet50-fine": resnet50_fine,
    "densenet121": DenseNet121,
}


def build_graph(name: str, *, labels: int) -> nn.Module:
    """Return a fresh network for one grey channel with `labels` outputs.

    Raises:
        ModelError: no graph has this name; the message names those that exist.
    """
    if name not in GRAPHS:
        raise ModelError(f"graph '{name}' does not exist{nearest(name, list(GRAPHS))}")
    return GRAPHS[name](labels)
