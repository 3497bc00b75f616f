"""What a pipeline says of a study: findings, their explanations with what was measured of them, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from service.concepts import Code
    from service.records import OutboxObject


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold on the calibrated probability, with what it was chosen for on validation data."""

    name: str
    threshold: float
    sensitivity: float
    """On the validation data."""
    specificity: float
    """On the validation data."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One label of the model with its calibrated probability for one image."""

    label: str
    code: Code
    probability: float
    """In [0, 1], after calibration."""
    operating_point: OperatingPoint
    operating_points: tuple[OperatingPoint, ...] = ()
    """All that the card names, the one above among them."""
    slice_probabilities: tuple[float, ...] = ()
    """Of each slice of a series, when the model reads slice by slice; empty for single images and 3-D models."""

    @property
    def positive(self) -> bool:
        """True at or above the threshold of the operating point."""
        return self.probability >= self.operating_point.threshold


class Verdict(StrEnum):
    """How far an explanation may be trusted on this image."""

    RELIABLE = "reliable"
    CAUTION = "use with caution"
    NOT_SHOWN = "not shown"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure about one explanation, with what chance or a baseline gives on the same image."""

    name: str
    """For machines, for example `deletion-auc`."""
    title: str
    """For humans, for example `Deletion AUC`."""
    value: float
    baseline: float | None = None
    """The same figure for a random order, a shuffled map or the area alone; None where nothing compares."""
    unit: str = "1"
    """UCUM; "1" for shares and coefficients."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What was measured of one explanation and what follows from it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """Short sentences for a radiologist; empty only when reliable."""
    measures: tuple[Measure, ...]
    senseless: tuple[str, ...] = ()
    """Sentences on figures that make no sense for this input, or this set of methods, and so were not taken. None of
    them is a doubt; a figure that should have been taken and was not is among the reasons."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """One explanation: how much each pixel of the source influenced one finding."""

    method: str
    """Registered name, for example `grad-cam`."""
    title: str
    """For humans, for example `Grad-CAM`."""
    finding: str
    """Label of the finding that it explains."""
    map: NDArray[np.float32]
    """Signed, arbitrary units: positive raised the probability. Shape (rows, columns) of the source image; for a
    series (slices, rows, columns) in the order of `Series.slices`, 0 on slices that were not explained."""
    parameters: Mapping[str, str]
    seconds: float
    assessment: Assessment | None = None
    """None when nothing was measured, which is no reason to trust it."""
    spread: NDArray[np.float32] | None = None
    """Of a consensus of methods: their standard deviation, same shape as `map`."""


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What a result says of the model that made it."""

    name: str
    title: str
    version: str
    sha256: str
    manufacturer: str
    trained_on: str
    limits: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the pipeline found in one image, with the explanations of it."""

    job_id: str
    created_at: datetime
    """The job's, not the clock's, with the time zone that the hospital writes its dates in."""
    pipeline: str
    pipeline_version: str
    series_number: int
    """The pipeline's; each kind of object adds its place."""
    software_version: str
    model: ModelIdentity
    findings: tuple[Finding, ...]
    attributions: tuple[Attribution, ...]
    """In the pipeline's order; the first one is the default, drawn large unless it must not be shown."""
    contradictions: tuple[str, ...] = ()
    """Sentences naming methods whose maps of one finding contradict each other."""
    unavailable: tuple[str, ...] = ()
    """Sentences naming methods that were asked for and gave no map, with the reason."""
    notes: tuple[str, ...] = ()
    """Sentences on the input: what of a series was left out and why, and what is uneven."""
    supersedes: tuple[OutboxObject, ...] = ()
    """Objects of the earlier job that this result replaces."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a study or image was not analysed, in words for an administrator and a radiologist."""

    job_id: str
    created_at: datetime
    pipeline: str
    pipeline_version: str
    series_number: int
    """The pipeline's; each kind of object adds its place."""
    software_version: str
    model: ModelIdentity
    reason: str
    details: tuple[str, ...] = field(default=())
