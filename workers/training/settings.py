"""The settings of one training run, read from one TOML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from service.model_card import CodeEntry, Eligibility, Input, Training  # noqa: TC001 - pydantic reads them
from service.validation import Strict, read_toml, validate

if TYPE_CHECKING:
    from pathlib import Path


class Data(Strict):
    """Where the films lie; relative paths count from the settings file."""

    folder: str
    """One sub-folder per class, or a CSV with the columns path, label and perhaps patient."""
    negative: str = "NORMAL"
    """Sub-folder or label of the films without the finding."""
    positive: str = "PNEUMONIA"
    """Sub-folder or label of the films with it."""
    clear: str = ""
    """CSV or folder of films without the finding from elsewhere (adults, say): they join the training alone, as they
    are and as ground for planted opacities, so that where a film comes from tells nothing about its class."""
    side: int = Field(default=224, gt=0)
    """Films are kept and augmented as squares of so many pixels; the network may see them smaller."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the patients whose films only choose epoch, calibration and thresholds."""


class Optimisation(Strict):
    """How the weights are found."""

    epochs: int = Field(gt=0)
    batch: int = Field(default=48, gt=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    label_smoothing: float = Field(default=0.05, ge=0, lt=0.5)
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    """Per step, of the running average of the weights that is validated and shipped."""
    patience: int = Field(default=12, gt=0)
    """Stop after so many epochs without a better validation score."""
    augmentation: float = Field(default=1.0, gt=0, le=1)
    """Strength of pose, exposure, background and lettering changes; see `workers.training.augment`."""
    sides: tuple[tuple[float, int], ...] = ()
    """(share of the run, side in pixels): from there on films are shown at this size; empty: always at the input's.
    Small films first cost a fraction of the time (Touvron et al. 2019, arXiv:1906.06423)."""
    frozen: tuple[str, ...] = ()
    """Modules of the graph (`conv1`, `layer1`) that keep the weights and statistics of `start`: nothing is computed
    backwards through the first ones, which cost the most on large films."""
    bfloat16: bool = True
    threads: int = Field(default=2, gt=0)


class Synthesis(Strict):
    """What is planted, and how much explanations count beside the class."""

    planted_share: float = Field(default=0.0, ge=0, le=0.6)
    """Share of a batch: films without the finding, with opacities planted at known places."""
    phantom_share: float = Field(default=0.0, ge=0, le=0.6)
    """Share of a batch: procedural phantoms, half of them with opacities."""
    phantoms: int = Field(default=0, ge=0)
    """How many phantoms are drawn, once."""
    inside_weight: float = Field(default=0.0, ge=0)
    """Of the loss that asks the class activation to lie inside what was planted."""
    covered_weight: float = Field(default=0.0, ge=0)
    """Of the loss that asks the class activation to reach half its maximum all over what was planted."""
    outside_weight: float = Field(default=0.0, ge=0)
    """Of the loss that asks the class activation to stay out of everything but the lungs."""
    lung_epochs: int = Field(default=0, ge=0)
    """Epochs of the small network that estimates lung fields; 0 leaves them out."""


class Distillation(Strict):
    """A trained model that shows the way (Hinton 2015, arXiv:1503.02531; Beyer 2021, arXiv:2106.05237)."""

    teacher: str = ""
    """Folder of its package; relative to the settings file. It sees the very films that the network sees."""
    weight: float = Field(default=0.0, ge=0, le=1)
    """Share of the teacher's probability in the target; the rest is the film's class."""


class Package(Strict):
    """What the card of the result says."""

    name: str
    title: str
    version: str
    manufacturer: str
    intended_use: str
    limits: str
    label: str
    code: CodeEntry
    graph: str
    cam_layer: str
    input: Input
    eligibility: Eligibility
    training: Training


class TrainingSettings(Strict):
    """One TOML file."""

    seed: int = 0
    runs: str
    """Folder for checkpoints and decoded films; relative to the settings file."""
    output: str
    """Folder of the model package; relative to the settings file."""
    start: str = ""
    """Package whose weights the run starts from; relative to the settings file. Empty: from chance."""
    data: Data
    optimisation: Optimisation
    synthesis: Synthesis = Synthesis()
    distillation: Distillation = Distillation()
    package: Package

    @model_validator(mode="after")
    def _frozen_after_a_start(self) -> Self:
        if self.optimisation.frozen and not self.start:
            raise ValueError(
                "optimisation.frozen keeps weights as they start: name the package they come from in start"
            )
        return self


def load_settings(path: Path) -> TrainingSettings:
    """Read and check the settings of a run.

    Raises:
        SettingsError: the file is missing or wrong; the message names the key.
    """
    return validate(TrainingSettings, read_toml(path), source=str(path))
