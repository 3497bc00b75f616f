"""Model packages as data: reads `config/models/<name>/model.toml`. It never opens the weights.

Every key is described in `docs/models.md`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from service.concepts import Code
from service.errors import SettingsError
from service.results import ModelIdentity, OperatingPoint
from service.validation import Strict, read_toml, validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]

_CODE_FORMS = {"SCT": r"\d{6,18}", "RADLEX": r"RID\d{1,7}", "DCM": r"\d{6}", "LN": r"\d{1,7}-\d"}
"""What a value of a public coding scheme looks like; private schemes begin with 99 (PS3.3 section 8.2)."""
CODED_FORMATS = frozenset({"torchscript", "torch-export", "monai-bundle"})
"""Weights files that hold a program beside the numbers."""


class CodeEntry(Strict):
    """A coded concept: value, coding scheme designator, meaning."""

    value: str = Field(min_length=1, max_length=16)
    scheme: str = Field(min_length=1, max_length=16)
    meaning: str = Field(min_length=1, max_length=64)

    def code(self) -> Code:
        """Return the value that travels."""
        return Code(value=self.value, scheme=self.scheme, meaning=self.meaning)


class OperatingPointEntry(Strict):
    """A threshold chosen on validation data."""

    name: str
    threshold: Probability
    sensitivity: Probability
    specificity: Probability

    def operating_point(self) -> OperatingPoint:
        """Return the value that travels."""
        return OperatingPoint(**self.model_dump())


class Label(Strict):
    """One output of the network."""

    name: str
    code: CodeEntry
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logit before the sigmoid (Guo et al. 2017, "On calibration of modern neural networks")."""
    bias: float = 0.0
    """Added to the logit after the division."""
    op_norm: float | None = Field(default=None, gt=0.0, lt=1.0)
    """torchxrayvision's threshold of this label; the result is then a score centred on it, 0.5 at the threshold."""
    background: bool = False
    """An output that is no finding, as the class "nothing found" or one without training: never reported."""
    target: Literal["", "intracranial"] = ""
    """Where alone the finding can be: its maps are then held against an estimate of that place. CT series only."""
    operating_point: str
    """Name of the default one."""
    operating_points: tuple[OperatingPointEntry, ...] = Field(min_length=1)

    def default_operating_point(self) -> OperatingPoint:
        """Return the operating point that results use."""
        return next(p.operating_point() for p in self.operating_points if p.name == self.operating_point)


class Weights(Strict):
    """The file with the parameters."""

    file: str
    """Inside the package's folder."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    format: Literal[
        "safetensors", "state-dict", "torchxrayvision", "torchscript", "torch-export", "onnx", "monai-bundle"
    ] = "safetensors"
    graph: str = ""
    """Registered name of the network, for example `resnet-compact`; where the file itself holds no graph."""
    cam_layer: str = ""
    """Dotted name of the module whose output class activation maps use; empty: no such maps."""
    trusted: bool = False
    """Somebody looked at where a file that holds a program came from; without it such a file is not loaded."""
    output: Literal["logits", "probabilities"] = "logits"
    """What the network itself returns: before or after its sigmoid or softmax."""


class Input(Strict):
    """What the network expects."""

    rows: int = Field(gt=0, le=4096)
    columns: int = Field(gt=0, le=4096)
    slices: int = Field(default=0, ge=0, le=1024)
    """Of a volume; 0 for a two-dimensional network."""
    channels: Literal[1, 3] = 1
    """3: the grey image three times, for networks that learned from photographs."""
    normalization: Literal["per-image", "fixed", "torchxrayvision", "window", "percentile"] = "per-image"
    mean: float | tuple[float, ...] = 0.0
    std: Positive | tuple[Positive, ...] = 1.0
    """Subtracted from and dividing the values in [0, 1], one for all channels or one each; not with per-image."""
    window_center: float = 0.0
    window_width: float = Field(default=0.0, ge=0.0)
    """In the units of the modality LUT, HU for CT; with `window`."""
    fit: Literal["squash", "centre-crop"] = "squash"
    """How an image that is no square becomes one."""
    spacing_mm: tuple[Positive, Positive, Positive] | tuple[()] = ()
    """Of a volume's slices, rows, columns; the middle of the series is cut out or padded. Empty: all, squashed."""


class SeriesReading(Strict):
    """How the model reads a CT or MR series."""

    reading: Literal["slices", "volume"]
    aggregation: Literal["max", "top-k-mean", "attention"] = "max"
    """From the slices' logits to the series'; a volume has one logit to begin with."""
    top_k: int = Field(default=3, ge=1)
    sharpness: Positive = 1.0
    """With `attention` each slice weighs exp(sharpness x its own logit): 0 would be the mean, infinity the maximum."""
    minimum_slices: int = Field(default=4, ge=1)
    explained_slices: int = Field(default=3, ge=1)
    """The most probable ones."""


class Eligibility(Strict):
    """Which images the model was made for; empty means anything."""

    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    """Accepted Body Part Examined values; an image that names none is let through."""
    views: tuple[str, ...] = ()
    """Accepted View Position values; an image that names none is let through."""
    minimum_rows: int = 64
    minimum_columns: int = 64
    minimum_age_years: float = 0.0
    maximum_age_years: float = 200.0
    """A patient whose age the image does not say is let through."""


class Training(Strict):
    """What the model learned from."""

    data: str
    licence: str
    attribution: str


class ModelCard(Strict):
    """A model package's card."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    title: str
    version: str
    manufacturer: str
    intended_use: str
    limits: str
    task: Literal["binary", "multi-label", "multi-class"] = "multi-label"
    """Multi-class: the labels exclude each other and their probabilities sum to 1 (softmax)."""
    weights: Weights
    input: Input
    series: SeriesReading | None = None
    """None: the model reads single images."""
    labels: tuple[Label, ...] = Field(min_length=1)
    eligibility: Eligibility = Eligibility()
    training: Training

    @property
    def identity(self) -> ModelIdentity:
        """What a result says of this model."""
        return ModelIdentity(
            name=self.name,
            title=self.title,
            version=self.version,
            sha256=self.weights.sha256,
            manufacturer=self.manufacturer,
            trained_on=self.training.data,
            limits=self.limits,
        )


def load_card(folder: Path) -> ModelCard:
    """Read the card of one model package.

    Raises:
        SettingsError: `model.toml` is missing or wrong; the message names the key.
    """
    path = folder / "model.toml"
    card = validate(ModelCard, read_toml(path), source=str(path))
    for fault in (*_label_faults(card), *_weights_faults(card.weights), *_input_faults(card)):
        raise SettingsError(f"{path}: {fault}")
    return card


def _label_faults(card: ModelCard) -> Iterator[str]:
    names = [label.name for label in card.labels]
    for label in card.labels:
        if names.count(label.name) > 1:
            yield f"two labels have the name '{label.name}'"
        if label.operating_point not in {point.name for point in label.operating_points}:
            yield f"label '{label.name}' has no operating point '{label.operating_point}'"
        if label.target and (card.series is None or "CT" not in card.eligibility.modalities):
            yield f"label '{label.name}': inside the skull is known on CT series alone, which this model does not read"
        form = _CODE_FORMS.get(label.code.scheme)
        if form is None and not label.code.scheme.startswith("99"):
            known = f"none of {', '.join(_CODE_FORMS)}, and private ones begin with 99"
            yield f"label '{label.name}': coding scheme '{label.code.scheme}' is {known}"
        elif form and not re.fullmatch(form, label.code.value):
            yield f"label '{label.name}': '{label.code.value}' is no code of {label.code.scheme}"
    if card.task == "binary" and len(card.labels) != 1:
        yield f"a binary model has one label, not {len(card.labels)}"
    if card.task == "multi-class" and len(card.labels) < 2:  # noqa: PLR2004 - classes that exclude each other
        yield "a multi-class model has at least two labels"
    if all(label.background for label in card.labels):
        yield "every label is a background class: there is nothing to find"


def _weights_faults(weights: Weights) -> Iterator[str]:
    if weights.format in {"safetensors", "state-dict"} and not weights.graph:
        yield f"'weights.graph' is missing: {weights.format} holds numbers, no network"
    if weights.format in CODED_FORMATS | {"onnx"} and weights.graph:
        yield f"'weights.graph' does not go with {weights.format}, which brings its own network"


def _input_faults(card: ModelCard) -> Iterator[str]:
    expected, series = card.input, card.series
    if expected.normalization == "window" and not expected.window_width:
        yield "'input.window_center' and 'input.window_width' are missing"
    for name, values in (("mean", expected.mean), ("std", expected.std)):
        if isinstance(values, tuple) and len(values) != expected.channels:
            yield f"'input.{name}' has {len(values)} values for {expected.channels} channels"
    if (expected.slices > 0) != (series is not None and series.reading == "volume"):
        yield "'input.slices' and [series] reading = \"volume\" go together"
    if expected.slices and expected.fit == "centre-crop":
        yield "a volume is not cropped to a square: give 'input.spacing_mm' instead"
    if expected.spacing_mm and not expected.slices:
        yield "'input.spacing_mm' is for volumes"
