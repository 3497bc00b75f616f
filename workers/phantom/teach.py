"""Teaches the two demonstration networks on phantom heads alone, and writes their packages.

`slice-net` learns slices of head CTs with or without a planted bleed, `volume-net` whole brain MRs with or without a
planted tumour. Besides the label they are taught where to look: the logit of every place is held against the lesion
(the idea of Ross et al. 2017, arXiv:1703.03717, "right for the right reasons"). Minutes on one processor core; the same
seed gives the same weights on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch.nn import functional as F

from service.images import Image, ImageHeader, Series
from workers.models.calibration import pooled
from workers.models.small import SliceNet, VolumeNet, soft_maximum
from workers.phantom.demonstration_cards import CT_CARD, CT_INPUT, CT_READING, MR_CARD, MR_INPUT
from workers.phantom.head import HeadPhantom, make_brain_mr, make_head_ct
from workers.training.calibrate import calibrate, choose_points
from workers.volumes import series_to_volume, slices_to_input

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from service.results import OperatingPoint
    from workers.training.calibrate import Calibration

log = logging.getLogger(__name__)

SMALLEST_SLICE_PIXELS = 10
"""Of lesion; slices with fewer, but some, are neither taught nor counted."""
BATCH = {"CT": 48, "MR": 12}
LEARNING_RATE = 3e-3
LOOK_WEIGHT = 1.0
FIRST_VALIDATION_SEED = 500_000


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Inputs with their truth."""

    inputs: torch.Tensor
    labels: torch.Tensor
    """Float32 (examples,), 0 or 1."""
    lesions: torch.Tensor
    """Float32, the lesion on the input's grid, (examples, [slices,] rows, columns)."""


def phantom_series(phantom: HeadPhantom, modality: Literal["CT", "MR"]) -> Series:
    """Return a phantom as the reader would return its files."""
    values = phantom.volume.astype(np.float32)
    grey = np.clip(values / 80, 0, 1) if modality == "CT" else np.clip(values / max(float(values.max()), 1.0), 0, 1)
    spacing = (phantom.pixel_mm, phantom.pixel_mm)
    _, rows, columns = values.shape
    slices = tuple(
        Image(
            header=_header(modality, index, rows, columns),
            grey=grey[index],
            values=values[index],
            pixel_spacing_mm=spacing,
        )
        for index in range(len(values))
    )
    return Series(slices=slices, positions_mm=phantom.positions_mm)


def _header(modality: str, index: int, rows: int, columns: int) -> ImageHeader:
    return ImageHeader(
        sop_instance_uid=f"2.25.{index + 1}",
        modality=modality,
        body_part="HEAD",
        rows=rows,
        columns=columns,
    )


def ct_examples(first_seed: int, heads: int) -> Examples:
    """Return slices of head CTs: every slice with a bleed, and as many without from sick and healthy heads alike."""
    inputs, labels, lesions = [], [], []
    for seed in range(first_seed, first_seed + heads):
        phantom = make_head_ct(seed, bleed=seed % 2 == 0)
        batch = slices_to_input(phantom_series(phantom, "CT"), CT_INPUT)
        truth = torch.from_numpy(phantom.lesion.astype(np.float32))
        pixels = truth.sum(dim=(1, 2))
        rng = np.random.default_rng(seed)
        healthy = [int(i) for i in rng.permutation(torch.nonzero(pixels == 0).flatten().numpy())[:4]]
        chosen = [*torch.nonzero(pixels >= SMALLEST_SLICE_PIXELS).flatten().tolist(), *healthy]
        inputs.append(batch[chosen])
        labels.append((pixels[chosen] > 0).float())
        lesions.append(truth[chosen])
    return Examples(inputs=torch.cat(inputs), labels=torch.cat(labels), lesions=torch.cat(lesions))


def mr_examples(first_seed: int, heads: int) -> Examples:
    """Return whole brain MRs, half of them with a tumour."""
    inputs, labels, lesions = [], [], []
    for seed in range(first_seed, first_seed + heads):
        phantom = make_brain_mr(seed, tumour=seed % 2 == 0)
        inputs.append(series_to_volume(phantom_series(phantom, "MR"), MR_INPUT))
        labels.append(torch.tensor([float(phantom.lesion.any())]))
        truth = torch.from_numpy(phantom.lesion.astype(np.float32))[None, None]
        size = (MR_INPUT.slices, MR_INPUT.rows, MR_INPUT.columns)
        lesions.append(F.interpolate(truth, size=size, mode="trilinear", align_corners=False)[0])
    return Examples(inputs=torch.cat(inputs), labels=torch.cat(labels), lesions=torch.cat(lesions))


def teach(network: SliceNet | VolumeNet, examples: Examples, *, epochs: int, batch: int, seed: int) -> None:
    """Fit the network in place: AdamW, one cycle, label and look."""
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(examples.inputs) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(examples.inputs), generator=generator)
        losses = []
        for start in range(0, len(order) - batch + 1, batch):
            chosen = order[start : start + batch]
            loss = _loss(network, *_augmented(examples, chosen, generator))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        log.info("epoch %d of %d: loss %.4f", epoch + 1, epochs, sum(losses) / len(losses))
    network.eval()


def _augmented(
    examples: Examples, chosen: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    inputs, lesions = examples.inputs[chosen], examples.lesions[chosen]
    down, across = (int(v) for v in torch.randint(-4, 5, (2,), generator=generator))
    inputs, lesions = (value.roll((down, across), dims=(-2, -1)) for value in (inputs, lesions))
    if bool(torch.rand(1, generator=generator) < 0.5):  # noqa: PLR2004 - heads are symmetrical enough
        inputs, lesions = inputs.flip(-1), lesions.flip(-1)
    gain = 0.9 + 0.2 * torch.rand((len(chosen),) + (1,) * (inputs.dim() - 1), generator=generator)
    noise = 0.05 * torch.randn(inputs.shape, generator=generator)
    return inputs * gain + noise, examples.labels[chosen], lesions


def _loss(
    network: SliceNet | VolumeNet, inputs: torch.Tensor, labels: torch.Tensor, lesions: torch.Tensor
) -> torch.Tensor:
    places = network.places(inputs)[..., 0]
    label = F.binary_cross_entropy_with_logits(soft_maximum(places[..., None])[:, 0], labels)
    pool = F.adaptive_max_pool2d if lesions.dim() == 3 else F.adaptive_max_pool3d  # noqa: PLR2004 - no slices
    grid = network.features(inputs[:1]).shape[2:]
    inside = (pool(lesions[:, None], grid).flatten(1) > 0.4).float()  # noqa: PLR2004 - of a voxel
    each = F.binary_cross_entropy_with_logits(places, inside, reduction="none")
    # Lesion and rest weigh the same, however small the lesion is.
    look = (each * inside).sum() / inside.sum().clamp_min(1.0) + (each * (1 - inside)).sum() / (1 - inside).sum()
    return label + LOOK_WEIGHT * look


def ct_logits(network: SliceNet, first_seed: int, heads: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the pooled logit of whole head CTs as the service pools them, and whether there is a bleed."""
    logits, truth = [], []
    for seed in range(first_seed, first_seed + heads):
        batch = slices_to_input(phantom_series(make_head_ct(seed, bleed=seed % 2 == 0), "CT"), CT_INPUT)
        with torch.inference_mode():
            slices = network(batch).double().numpy()
        logits.append(float(pooled(slices, CT_READING.aggregation, top_k=CT_READING.top_k, sharpness=1.0)[0, 0]))
        truth.append(int(seed % 2 == 0))
    return np.array(logits), np.array(truth)


def mr_logits(network: VolumeNet, first_seed: int, heads: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the logit of whole brain MRs, and whether there is a tumour."""
    held_out = mr_examples(first_seed, heads)
    return logits_of(network, held_out), held_out.labels.numpy().astype(np.int64)


def logits_of(network: SliceNet | VolumeNet, examples: Examples) -> NDArray[np.float64]:
    """Return the network's logits, shape (examples,)."""
    with torch.inference_mode():
        parts = [network(chunk)[:, 0] for chunk in torch.split(examples.inputs, 64)]
    return torch.cat(parts).double().numpy()


def write_ct_package(folder: Path, *, heads: int = 240, epochs: int = 6, seed: int = 7) -> None:
    """Teach `slice-net` and write the package `head-ct-bleed-demo`."""
    _write(folder, SliceNet, ct_examples, ct_logits, BATCH["CT"], heads=heads, epochs=epochs, seed=seed, card=CT_CARD)


def write_mr_package(folder: Path, *, heads: int = 320, epochs: int = 12, seed: int = 7) -> None:
    """Teach `volume-net` and write the package `brain-mr-tumour-demo`."""
    _write(folder, VolumeNet, mr_examples, mr_logits, BATCH["MR"], heads=heads, epochs=epochs, seed=seed, card=MR_CARD)


def _write(
    folder: Path,
    make: Callable[[], SliceNet | VolumeNet],
    draw: Callable[[int, int], Examples],
    judge: Callable[[Any, int, int], tuple[NDArray[np.float64], NDArray[np.int64]]],
    batch: int,
    *,
    heads: int,
    epochs: int,
    seed: int,
    card: str,
) -> None:
    torch.manual_seed(seed)
    network = make()
    teach(network, draw(0, heads), epochs=epochs, batch=batch, seed=seed)
    logits, truth = judge(network, FIRST_VALIDATION_SEED, max(heads // 3, 8))
    calibration = calibrate(logits, truth)
    points = choose_points(truth, calibration.probability(logits))
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: _half(tensor) for name, tensor in network.state_dict().items()})
    (folder / "weights.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "model.toml").write_text(card.format(sha256=digest) + _label(calibration, points), encoding="utf-8")


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().contiguous() if tensor.is_floating_point() else tensor


def _label(calibration: Calibration, points: tuple[OperatingPoint, ...]) -> str:
    lines = [
        f"temperature = {calibration.temperature:.6f}",
        f"bias = {calibration.bias:.6f}",
        'operating_point = "balanced"',
    ]
    for point in points:
        lines += ["", "[[labels.operating_points]]", *(f"{key} = {json.dumps(v)}" for key, v in vars(point).items())]
    return "\n".join(lines) + "\n"
