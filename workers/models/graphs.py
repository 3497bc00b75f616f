"""The graphs that a model package may name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from service.errors import ModelError
from service.validation import nearest
from workers.models.compact import CompactResNet, compact_fine
from workers.models.densenet import DenseNet121
from workers.models.resnet import resnet18, resnet34, resnet50, resnet50_fine
from workers.models.small import SliceNet, VolumeNet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

GRAPHS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet-compact": CompactResNet,
    "resnet-compact-fine": compact_fine,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet50-fine": resnet50_fine,
    "densenet121": DenseNet121,
    "slice-net": SliceNet,
    "volume-net": VolumeNet,
}


def build_graph(name: str, *, labels: int, channels: int = 1) -> nn.Module:
    """Return a fresh network with `labels` outputs.

    Raises:
        ModelError: no graph has this name (the message names those that exist), or it reads one channel only.
    """
    if name not in GRAPHS:
        raise ModelError(f"graph '{name}' does not exist{nearest(name, list(GRAPHS))}")
    make = GRAPHS[name]
    if "channels" in inspect.signature(make).parameters:
        return make(labels=labels, channels=channels)
    if channels != 1:
        raise ModelError(f"graph '{name}' reads one channel, not {channels}")
    return make(labels=labels)
