"""Model packages as data: reads `config/models/<name>/model.toml`. It never opens the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from service.errors import SettingsError
from service.types import Code, ModelIdentity, OperatingPoint
from service.validation import Strict, read_toml, validate

if TYPE_CHECKING:
    from pathlib import Path

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


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
    operating_point: str
    """Name of the default one."""
    operating_points: tuple[OperatingPointEntry, ...] = Field(min_length=1)

    def default_operating_point(self) -> OperatingPoint:
        """Return the operating point that results use."""
        return next(p.operating_point() for p in self.operating_points if p.name == self.operating_point)


class Weights(Strict):
    """The file with the parameters."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    format: Literal["safetensors"] = "safetensors"
    graph: str
    """Registered name of the network, for example `resnet-compact`."""
    cam_layer: str
    """Dotted name of the module whose output class activation maps use."""


class Input(Strict):
    """What the network expects."""

    rows: int = Field(gt=0)
    columns: int = Field(gt=0)
    normalization: Literal["per-image", "fixed"] = "per-image"
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)


class Eligibility(Strict):
    """Which images the model was made for; empty means anything."""

    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    """Accepted Body Part Examined values; an image that names none is let through."""
    views: tuple[str, ...] = ()
    """Accepted View Position values; an image that names none is let through."""
    minimum_rows: int = 64
    minimum_columns: int = 64


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
    weights: Weights
    input: Input
    labels: tuple[Label, ...] = Field(min_length=1)
    eligibility: Eligibility = Eligibility()
    training: Training
    figures: dict[str, float] = {}
    """Measured on the official test split; names as in `pellucid evaluate --json`."""

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
    for label in card.labels:
        if label.operating_point not in {point.name for point in label.operating_points}:
            raise SettingsError(f"{path}: label '{label.name}' has no operating point '{label.operating_point}'")
    return card
