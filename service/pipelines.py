"""Which instances go through which pipeline. Pure: it reads TOML once and then only compares."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from service.errors import SettingsError
from service.model_card import load_card
from service.validation import Strict, nearest, read_toml, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from service.settings import Settings

SERIES_NUMBERS = 100
"""How many Series Numbers a pipeline has, its own `series_number` the first of them."""
FIRST_DRAWN, DRAWN = 10_000, 900
"""A pipeline that names no number gets one of so many, from there on."""


class Threshold(Strict):
    """Where a measure of an explanation turns the verdict; on which side is bad is the measure's own business."""

    caution: float
    """Beyond it: use with caution."""
    hide: float | None = None
    """Beyond it: not shown; without it, this measure alone hides no map."""


class Explanation(Strict):
    """How much is explained, and how much work and time it may take."""

    budget_s: float = Field(default=60.0, gt=0)
    """Work on one image or series, in seconds of a machine that does 100 thousand million multiply-adds a second:
    counted, not clocked, so that a busy machine gives the same result. Methods run in order of cost; those that no
    longer fit are named in the report."""
    brake_s: float = Field(default=180.0, gt=0)
    """Wall-clock seconds after which nothing more is begun. An emergency brake: what it leaves out depends on the
    machine, and the result says so."""
    maximum_findings: int = Field(default=3, ge=1)
    """At most so many findings above their operating point are explained, the most probable first."""
    seed: int = 0
    """Of every method that samples."""
    assessors: tuple[str, ...] = ("faithfulness", "stability", "plausibility", "agreement")
    """What is measured of every map; see docs/trust.md."""
    thresholds: dict[str, Threshold] = {}
    """Of measures whose thresholds differ from the built-in ones, by the measure's name."""
    consensus: bool = True
    """Whether the maps that passed are joined to one more when there are at least two."""


class Pipeline(Strict):
    """What is done with a kind of study, and where the results go."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    title: str
    version: str = Field(min_length=1)
    input: Literal["image", "study"]
    model: str
    modalities: tuple[str, ...] = Field(min_length=1)
    explainers: tuple[str, ...] = Field(min_length=1)
    outputs: tuple[str, ...] = Field(min_length=1)
    destinations: tuple[str, ...] = Field(min_length=1)
    called_ae_titles: tuple[str, ...] = ()
    report_refused: bool = False
    priority: Literal["stat", "routine"] = "routine"
    series_number: int = Field(ge=1000, le=999_900)
    """Below the Series Numbers of its results, each kind of object has a place above it. Far from a modality's own,
    which count from 1, and of at most six digits, which viewers show whole. Left out: drawn from the name."""
    explanation: Explanation = Explanation()
    parameters: dict[str, dict[str, bool | int | float | str]] = {}
    """Parameters of explainers that differ from their defaults, by the explainer's name."""

    @model_validator(mode="before")
    @classmethod
    def _numbered(cls, values: object) -> object:
        if isinstance(values, dict) and "series_number" not in values:
            drawn = int(hashlib.sha256(str(values.get("name")).encode()).hexdigest(), 16) % DRAWN
            return {**values, "series_number": FIRST_DRAWN + SERIES_NUMBERS * drawn}
        return values

    def selects(self, modality: str) -> bool:
        """Tell whether an image of this modality is this pipeline's business."""
        return modality in self.modalities


class RunnablePipeline(Strict):
    """A pipeline together with the identity of its model and the AE titles that choose it."""

    pipeline: Pipeline
    model_sha256: str
    called_ae_titles: tuple[str, ...]


def load_pipelines(settings: Settings) -> tuple[RunnablePipeline, ...]:
    """Read the enabled pipelines and the cards of their models.

    Raises:
        SettingsError: a pipeline, model or destination does not exist; the message lists those that do.
    """
    return tuple(_load(name, settings) for name in settings.pipelines.enabled)


def _load(name: str, settings: Settings) -> RunnablePipeline:
    folder = settings.pipelines_directory
    _require(name, [path.stem for path in folder.glob("*.toml")], f"pipeline in {folder}")
    path = folder / f"{name}.toml"
    pipeline = validate(Pipeline, read_toml(path), source=str(path))
    models = settings.models_directory
    _require(pipeline.model, [card.parent.name for card in models.glob("*/model.toml")], f"model in {models}")
    for destination in pipeline.destinations:
        if destination != "@sender":
            _require(destination, list(settings.peers), f"[peers] section, a destination of pipeline '{name}'")
    return RunnablePipeline(
        pipeline=pipeline,
        model_sha256=load_card(_model_folder(models, pipeline.model)).weights.sha256,
        called_ae_titles=pipeline.called_ae_titles or (settings.listener.ae_title,),
    )


def alike(pipelines: Iterable[Pipeline]) -> tuple[str, ...]:
    """Say of which pipelines a viewer would list results under the same Series Numbers."""
    ordered = sorted(pipelines, key=lambda pipeline: pipeline.series_number)
    return tuple(
        f"'{one.name}' ({one.series_number}) and '{other.name}' ({other.series_number})"
        for one, other in pairwise(ordered)
        if other.series_number - one.series_number < SERIES_NUMBERS
    )


def _model_folder(models: Path, name: str) -> Path:
    return models / name


def _require(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        raise SettingsError(f"'{name}' is no {what}{nearest(name, known)}")


def chosen_by(called_ae: str, pipelines: Iterable[RunnablePipeline]) -> tuple[RunnablePipeline, ...]:
    """Return the pipelines that a called AE title chooses."""
    return tuple(entry for entry in pipelines if called_ae in entry.called_ae_titles)


def job_id(entry: RunnablePipeline, study_instance_uid: str, sop_instance_uids: Iterable[str]) -> str:
    """Derive a job's identity: the same study, inputs, pipeline version and model give the same id."""
    parts = [
        study_instance_uid,
        *sorted(sop_instance_uids),
        entry.pipeline.name,
        entry.pipeline.version,
        entry.model_sha256,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
