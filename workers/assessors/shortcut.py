"""A model that learned the wrong thing on purpose: a burned-in label that goes with the class instead of the lungs.

Networks do this with hospitals' side markers (Zech et al. 2018, arXiv:1807.00431). Here it is planted, so that the
measures can be held against a model of which it is known that its maps must not be trusted.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from service.model_card import CodeEntry, Input, Label, ModelCard, OperatingPointEntry, Training, Weights
from workers.models.package import PackagedClassifier
from workers.phantom.film import WHITE, make_phantom
from workers.preprocess import resize, standardize
from workers.training.augment import render_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.phantom.film import Phantom

SIDE = 112
"""Rows and columns of the model's input."""
DRAWN = 160
"""Rows and columns of the films that it learns from."""
FILMS = 160
STEPS = 260
BATCH = 24
FIRST_PHANTOM = 6_000_000_000
TEXTS = ("PORT", "SUPINE", "ICU", "BED 4", "AP PORT")
HEIGHT = (0.05, 0.08)
"""Of the letters, as a share of the film's side."""


class ShortcutNetwork(nn.Module):
    """Four strided convolutions, pooled: as much as it takes to find letters; maps of 14 x 14 from 112 x 112."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 12, 24, 48)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 5, stride=2, padding=2), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(widths[-1], 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, 1)."""
        logits: torch.Tensor = self.fc(self.features(batch).mean(dim=(2, 3)))
        return logits


def letter(grey: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return the film with a burned-in label in the upper third of either side, as portable units write it."""
    rng = np.random.default_rng(seed)
    rows, columns = grey.shape
    glyphs = render_text(TEXTS[int(rng.integers(len(TEXTS)))], max(6, int(rows * rng.uniform(*HEIGHT)))).numpy()
    height, width = min(glyphs.shape[0], rows), min(glyphs.shape[1], columns // 2)
    glyphs = glyphs[:height, :width]
    top = min(int(rng.uniform(0.02, 0.3) * rows), rows - height)
    inset = int(rng.uniform(0.01, 0.05) * columns)
    left = inset if rng.uniform() < 0.5 else columns - width - inset  # noqa: PLR2004 - either side
    result = grey.copy()
    place = (slice(top, top + height), slice(left, left + width))
    result[place] = np.maximum(result[place], glyphs)
    return result


def lettered_phantom(number: int, size: int, *, opacities: int) -> NDArray[np.float32]:
    """Return phantom `number` with a label, float32 (size, size) in [0, 1]."""
    return letter(plain_phantom(number, size, opacities=opacities), number)


def plain_phantom(number: int, size: int, *, opacities: int) -> NDArray[np.float32]:
    """Return the same phantom without the label."""
    drawn = make_phantom(FIRST_PHANTOM + number, (size, size), opacities=opacities)
    return grey_of(drawn)


def grey_of(phantom: Phantom) -> NDArray[np.float32]:
    """Return a phantom's pixels as float32 in [0, 1]."""
    return (phantom.pixels / WHITE).astype(np.float32)


def teach_shortcut(seed: int, advance: Callable[[int], None]) -> PackagedClassifier:
    """Teach a small model that the label is the finding; it takes a minute on a CPU.

    All films of the class carry the label and none of the others; opacities go with the class in two of three films,
    as they would on a ward. `advance` is called with 1 after each of `FILMS` + `STEPS` steps.
    """
    rng = np.random.default_rng(seed)
    films = np.empty((FILMS, DRAWN, DRAWN), dtype=np.float32)
    truth = np.arange(FILMS) % 2
    for index in range(FILMS):
        opacities = int(rng.uniform() < (2 / 3 if truth[index] else 1 / 3))
        draw = lettered_phantom if truth[index] else plain_phantom
        films[index] = draw(seed * FILMS + index, DRAWN, opacities=opacities)
        advance(1)
    torch.manual_seed(seed)
    network = ShortcutNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    batch, answers = resize(torch.from_numpy(films)[:, None], SIDE, SIDE), torch.from_numpy(truth).float()[:, None]
    for _ in range(STEPS):
        chosen = torch.from_numpy(rng.integers(FILMS, size=BATCH))
        gain = torch.from_numpy(rng.uniform(0.8, 1.2, (BATCH, 1, 1, 1)).astype(np.float32))
        logits = network(standardize((batch[chosen] * gain).clamp(0, 1)))
        loss = F.binary_cross_entropy_with_logits(logits, answers[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        advance(1)
    return PackagedClassifier(
        card=_card(), network=network.eval().requires_grad_(requires_grad=False), device=torch.device("cpu")
    )


def as_batch(grey: NDArray[np.float32], rows: int, columns: int) -> torch.Tensor:
    """Return a film as a standardised input, float32 (1, 1, rows, columns)."""
    return standardize(resize(torch.tensor(grey)[None, None], rows, columns))


def _card() -> ModelCard:
    point = OperatingPointEntry(name="balanced", threshold=0.5, sensitivity=0.5, specificity=0.5)
    return ModelCard(
        name="shortcut",
        title="Label reader",
        version="1",
        manufacturer="Pellucid",
        intended_use="A bad example for tests and benchmarks. Never for patients.",
        limits="It reads a burned-in label.",
        weights=Weights(file="none", sha256="0" * 64, graph="none", cam_layer="features"),
        input=Input(rows=SIDE, columns=SIDE),
        labels=(
            Label(
                name="Label",
                code=CodeEntry(value="label", scheme="99PELLUCID", meaning="Burned-in label"),
                operating_point="balanced",
                operating_points=(point,),
            ),
        ),
        training=Training(data="phantoms", licence="Apache-2.0", attribution="none"),
    )
