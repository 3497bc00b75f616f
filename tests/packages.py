"""Model packages as a hospital would bring them: a small network in every format, and its card."""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from workers.models.export import onnx_of

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
CARD = """
name = "brought"
title = "Brought by a hospital"
version = "1"
manufacturer = "Test"
intended_use = "Test."
limits = "Test."
{task}
[weights]
file = "{file}"
sha256 = "{sha256}"
{weights}
[input]
rows = 32
columns = 32
{input}
[training]
data = "none"
licence = "none"
attribution = "none"
"""
LABEL = """
[[labels]]
name = "{name}"
code = {{ value = "233604007", scheme = "SCT", meaning = "Pneumonia" }}
operating_point = "balanced"
{more}
[[labels.operating_points]]
name = "balanced"
threshold = 0.5
sensitivity = 0.9
specificity = 0.9
"""


class Stranger(nn.Module):
    """A small network, that returns logits or what `ends` makes of them."""

    def __init__(self, labels: int = 2, ends: str = "", channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(channels, 4, 3, stride=2)
        self.fc = nn.Linear(4, labels)
        self.ends = ends

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.fc(torch.relu(self.conv(x)).mean(dim=(2, 3)))
        if self.ends == "sigmoid":
            return torch.sigmoid(logits)
        if self.ends == "softmax":
            return torch.softmax(logits, dim=1)
        return logits


def write_package(
    folder: Path,
    content: bytes,
    *,
    weights: str,
    file: str = "weights.bin",
    labels: int = 2,
    expected: str = "",
    task: str = "",
    more: str = "",
    names: tuple[str, ...] = (),
) -> Path:
    """Write weights of any format and a card that fits them."""
    folder.mkdir(exist_ok=True)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(content)
    card = CARD.format(
        file=file, sha256=hashlib.sha256(content).hexdigest(), weights=weights, input=expected, task=task
    )
    for name in names or tuple(f"label {index}" for index in range(labels)):
        card += LABEL.format(name=name, more=more)
    (folder / "model.toml").write_text(card)
    return folder


def scripted(network: nn.Module) -> bytes:
    """Return it as TorchScript."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network.eval()), buffer)
    return buffer.getvalue()


def exported(network: nn.Module, batch: int = 2, *, dynamic: bool = True) -> bytes:
    buffer = io.BytesIO()
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network.eval(), (torch.zeros(batch, 1, 32, 32),), dynamic_shapes=shapes)
        torch.export.save(program, buffer)
    return buffer.getvalue()


def onnx_bytes(network: nn.Module, *, dynamic: bool = True) -> bytes:
    pytest.importorskip("onnx", reason="writing ONNX needs the onnx package")
    return onnx_of(network, torch.zeros(1, 1, 32, 32), fixed_batch=not dynamic)
