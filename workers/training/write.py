"""Writes what a run made: the model package, the log and the curves."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from PIL import Image as Pillow
from PIL import ImageDraw
from safetensors.torch import save

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from torch import nn

    from service.results import OperatingPoint
    from workers.training.calibrate import Calibration
    from workers.training.settings import Package

WEIGHTS = "weights.safetensors"
CURVES = (
    ("loss", "#b03030"),
    ("auc", "#2060b0"),
    ("harder_auc", "#60a0e0"),
    ("lung_energy", "#208040"),
    ("pointing", "#c08020"),
)
PLOT = (720, 420, 50)
"""Width, height and margin of the curves, in pixels."""


def write_package(
    folder: Path,
    package: Package,
    network: nn.Module,
    *,
    calibration: Calibration,
    points: Sequence[OperatingPoint],
    history: Sequence[Mapping[str, float]],
    epoch: int,
) -> None:
    """Write `model.toml`, half-precision weights, `training.json` and `curves.png` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: halve(tensor) for name, tensor in network.state_dict().items()})
    (folder / WEIGHTS).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    card = model_toml(package, sha256=digest, calibration=calibration, points=points)
    (folder / "model.toml").write_text(card, encoding="utf-8")
    log = {"chosen_epoch": epoch, "history": [_rounded(record) for record in history]}
    (folder / "training.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    draw_curves(history, epoch).save(folder / "curves.png")


def halve(tensor: torch.Tensor) -> torch.Tensor:
    """Return floats in half precision and counters as they are, on the CPU and contiguous."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if tensor.is_floating_point() else tensor


def model_toml(package: Package, *, sha256: str, calibration: Calibration, points: Sequence[OperatingPoint]) -> str:
    """Return the card as TOML; see `service.model_card.ModelCard`."""
    expected, eligible, learned = package.input, package.eligibility, package.training
    lines = [
        *(f"{key} = {_text(getattr(package, key))}" for key in ("name", "title", "version", "manufacturer")),
        f"intended_use = {_text(package.intended_use)}",
        f"limits = {_text(package.limits)}",
        "",
        "[weights]",
        f"file = {_text(WEIGHTS)}",
        f"sha256 = {_text(sha256)}",
        f"graph = {_text(package.graph)}",
        f"cam_layer = {_text(package.cam_layer)}",
        "",
        "[input]",
        *(f"{key} = {_value(value)}" for key, value in expected.model_dump(exclude_none=True).items()),
        "",
        "[eligibility]",
        *(f"{key} = {_value(value)}" for key, value in eligible.model_dump(exclude_none=True).items()),
        "",
        "[training]",
        *(f"{key} = {_value(value)}" for key, value in learned.model_dump().items()),
        "",
        "[[labels]]",
        f"name = {_text(package.label)}",
        "code = { " + ", ".join(f"{k} = {_value(v)}" for k, v in package.code.model_dump().items()) + " }",
        f"temperature = {calibration.temperature:.6f}",
        f"bias = {calibration.bias:.6f}",
        'operating_point = "balanced"',
    ]
    for point in points:
        lines += ["", "[[labels.operating_points]]"]
        lines += [f"{key} = {_value(value)}" for key, value in vars(point).items()]
    return "\n".join(lines) + "\n"


def draw_curves(history: Sequence[Mapping[str, float]], chosen: int) -> Pillow.Image:
    """Draw loss and validation figures over the epochs, all on one axis from 0 to 1; a line marks `chosen`."""
    width, height, margin = PLOT
    picture = Pillow.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((margin, margin, width - margin, height - margin), outline="black")
    across = (width - 2 * margin) / max(len(history) - 1, 1)
    x = margin + (chosen - 1) * across
    draw.line((x, margin, x, height - margin), fill="#999999")
    for index, (name, colour) in enumerate(CURVES):
        values = [min(max(float(record.get(name, 0.0)), 0.0), 1.0) for record in history]
        heights = [height - margin - value * (height - 2 * margin) for value in values]
        draw.line([(margin + i * across, y) for i, y in enumerate(heights)], fill=colour, width=2)
        draw.text((margin + 120 * index, 20), name, fill=colour)
    draw.text((margin, height - 40), f"epochs 1 to {len(history)}; chosen: {chosen}; axis 0 to 1", fill="black")
    return picture


def _rounded(record: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in record.items()}


def _text(value: str) -> str:
    # TOML's basic strings escape as JSON's do.
    return json.dumps(value, ensure_ascii=False)


def _value(value: object) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
