"""The state of a run after an epoch, on disk: a run that is killed goes on from there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from service.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that the next epoch depends on; chance does not: it is seeded by the epoch's number."""

    settings: str
    """Digest of the settings; a run is only resumed under the same ones."""
    epoch: int
    """Epochs done."""
    network: Tensors
    average: Tensors
    optimizer: dict[str, Any]
    best: Tensors
    best_epoch: int
    history: list[dict[str, float]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path` atomically: a kill leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        torch.save(vars(checkpoint), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path, *, settings: str) -> Checkpoint:
    """Read a checkpoint; nothing but tensors and plain values is unpickled.

    Raises:
        SettingsError: it belongs to other settings.
    """
    checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if checkpoint.settings != settings:
        raise SettingsError(f"{path}: belongs to other settings; train without --resume, or restore them")
    return checkpoint
