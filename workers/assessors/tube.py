"""Models of series that learned the wrong thing on purpose: a tube beside the head that goes with the class.

What the burned-in label is to radiographs (see `shortcut`), lines and tubes of the gravely ill are to CT and MR. They
are planted so that the measures can be held against a model of which it is known that its maps must not be trusted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from workers.models.package import PackagedClassifier
from workers.models.small import SliceNet, VolumeNet
from workers.phantom.head import make_brain_mr, make_head_ct
from workers.phantom.teach import Examples, phantom_series, teach
from workers.volumes import mask_to_volume, series_to_volume, slices_to_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.images import Series
    from service.model_card import ModelCard
    from workers.phantom.head import HeadPhantom

HEADS = 40
SLICES = 4
"""Of each head, where the network reads slices."""
EPOCHS, BATCH = 12, 8
FIRST_HEAD = 4_000_000
RADIUS_MM = (6.0, 9.0)
PLACE_MM = ((72.0, 92.0), (82.0, 95.0))
"""How far before or behind, and left or right of the block's middle: no head reaches there."""
BRIGHTNESS = {"CT": (60.0, 200.0), "MR": (0.7, 0.9)}
"""HU, and share of the volume's 99th percentile."""


def head(modality: str, seed: int, *, sick: bool, tube: bool = False) -> HeadPhantom:
    """Return a phantom head of a modality, with or without its lesion, with or without a tube beside it."""
    phantom = make_head_ct(seed, bleed=sick) if modality == "CT" else make_brain_mr(seed, tumour=sick)
    if not tube:
        return phantom
    inside, bright = _tube(phantom, seed), float(np.random.default_rng(seed).uniform(*BRIGHTNESS[modality]))
    if modality == "MR":
        bright *= float(np.percentile(phantom.volume, 99))
    return replace(phantom, volume=np.where(inside, round(bright), phantom.volume).astype(np.int16))


def as_series(phantom: HeadPhantom, modality: str) -> Series:
    """Return a phantom as the reader would return its files."""
    return phantom_series(phantom, "CT" if modality == "CT" else "MR")


def _tube(phantom: HeadPhantom, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return a tube beside the head from the first slice to the last, leaning a little."""
    rng = np.random.default_rng(seed)
    slices, rows, columns = phantom.volume.shape
    down, across = (float(rng.uniform(*reach) * rng.choice((-1.0, 1.0))) for reach in PLACE_MM)
    lean = rng.uniform(-0.3, 0.3) * (np.arange(slices) - slices / 2)
    y = (np.arange(rows) + 0.5 - rows / 2) * phantom.pixel_mm - down
    x = (np.arange(columns) + 0.5 - columns / 2) * phantom.pixel_mm - across
    squares = (y[None, :, None] - lean[:, None, None]) ** 2 + x[None, None, :] ** 2
    inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = squares < rng.uniform(*RADIUS_MM) ** 2
    return inside


def teach_tube(card: ModelCard, modality: str, seed: int, advance: Callable[[int], None]) -> PackagedClassifier:
    """Teach a small model that the tube is the finding; a minute or two on a CPU.

    Half of the heads have the tube; lesions go with it in two of three heads, as they would on a ward. `advance` is
    called with 1 after each of `HEADS` heads.

    Args:
        card: of the model whose place it takes; the input is as that describes it.
        modality: "CT" or "MR".
        seed: of everything.
        advance: to show progress.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for index in range(HEADS):
        drawn.append(_examples(card, modality, index, rng))
        advance(1)
    torch.manual_seed(seed)
    network = VolumeNet() if card.input.slices else SliceNet()
    fields = (torch.cat([getattr(one, name) for one in drawn]) for name in ("inputs", "labels", "lesions"))
    inputs, answers, tubes = fields
    examples = Examples(inputs=inputs, labels=answers, lesions=tubes)
    teach(network, examples, epochs=EPOCHS, batch=BATCH if card.input.slices else SLICES * BATCH, seed=seed)
    labels = tuple(label.model_copy(update={"temperature": 1.0, "bias": 0.0}) for label in card.labels)
    named = card.model_copy(update={"name": "tube-reader", "limits": "It reads a tube.", "labels": labels})
    trained = network.eval().requires_grad_(requires_grad=False)
    return PackagedClassifier(card=named, network=trained, device=torch.device("cpu"))


def _examples(card: ModelCard, modality: str, index: int, rng: np.random.Generator) -> Examples:
    """Return one head as a volume, or some of its slices; the place to learn is the tube's."""
    tubed = index % 2 == 1
    sick = bool(rng.uniform() < (2 / 3 if tubed else 1 / 3))
    phantom = head(modality, FIRST_HEAD + index, sick=sick, tube=tubed)
    series = as_series(phantom, modality)
    tube = _tube(phantom, FIRST_HEAD + index) & tubed
    if card.input.slices:
        inputs = series_to_volume(series, card.input)
        places = torch.from_numpy(mask_to_volume(series, tube, card.input))[None]
    else:
        chosen = rng.permutation(len(series.slices))[:SLICES]
        inputs = slices_to_input(series, card.input)[chosen]
        size = (card.input.rows, card.input.columns)
        places = F.interpolate(torch.from_numpy(tube[chosen].astype(np.float32))[:, None], size=size)[:, 0]
    return Examples(inputs=inputs, labels=torch.full((len(inputs),), float(tubed)), lesions=places)
