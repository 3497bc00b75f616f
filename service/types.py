"""The values that travel through Pellucid: frozen, keyword-only, validated at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept (PS3.3 section 8.8): code value, coding scheme designator, code meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One SOP instance that a peer stored, as the ledger knows it. It carries no patient data."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    """Modality (0008,0060); empty when the instance does not say."""
    sha256: str
    """Of the encoded data set as received, without the file meta information."""
    size: int
    """Bytes of the encoded data set."""
    key: str
    """Where the spool keeps it; see `service.spool.Spool`."""
    calling_ae: str
    called_ae: str
    address: str
    """IP address of the peer."""
    received_at: datetime
    """UTC."""
    ours: bool = False
    """True when Pellucid made it: stored, never processed."""


class JobState(StrEnum):
    """Where a job stands. `done` means its objects are in the outbox; deliveries have their own state."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one pipeline over one set of instances of a study."""

    id: str
    """Derived from study, inputs, pipeline and model: the same work always has the same id."""
    study_instance_uid: str
    pipeline: str
    pipeline_version: str
    model_sha256: str
    calling_ae: str
    called_ae: str
    sop_instance_uids: tuple[str, ...]
    """The inputs, sorted."""
    state: JobState
    reason: str
    """Why it was refused or failed, in words for an administrator; empty otherwise."""
    attempts: int
    created_at: datetime
    """UTC. Every date and time in the objects derives from it, so a repeated task writes equal bytes."""
    updated_at: datetime
    supersedes: str = ""
    """Id of the earlier job over fewer instances of the same study, if any."""


class DeliveryState(StrEnum):
    """Where one object stands on its way to one destination."""

    PENDING = "pending"
    SENT = "sent"
    """The peer took it, and is asked whether it has it."""
    DELIVERED = "delivered"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class OutboxObject:
    """One DICOM object that a job made, kept until every destination has it."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    job_id: str
    kind: str
    """The output that made it, for example `secondary-capture`."""
    key: str
    """Where the outbox keeps it, relative to its folder."""
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One object on its way to one destination."""

    object: OutboxObject
    destination: str
    """Name of a `[peers.NAME]` section, or `@AE TITLE` for the AE that sent the study."""
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    reason: str
    sent_at: datetime | None = None
    """When the peer took it; None while it did not."""


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What an image says of itself, as far as eligibility and captions need it; empty where it says nothing.

    It carries no patient data.
    """

    sop_instance_uid: str
    sop_class_uid: str = ""
    modality: str = ""
    body_part: str = ""
    view_position: str = ""
    patient_orientation: tuple[str, ...] = ()
    laterality: str = ""
    rows: int
    columns: int
    frames: int = 1
    samples_per_pixel: int = 1
    photometric_interpretation: str = "MONOCHROME2"
    species: str = ""
    """Patient Species Description (0010,2201), else the meaning of its code; empty for humans' images."""
    age_years: float | None = None
    descriptions: tuple[str, ...] = ()
    """Series description, protocol name, acquisition device processing description."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One frame of grey values, ready for a model and for a human.

    `grey` has shape (rows, columns), float32 in [0, 1] after modality LUT and VOI LUT, in MONOCHROME2 sense
    (0 black, 1 white; on a radiograph bone is bright), on the source's own pixel grid: never flipped, never
    resampled. `values` are the same pixels after the modality LUT alone, in the units of `Rescale Type`.
    """

    header: ImageHeader
    grey: NDArray[np.float32]
    values: NDArray[np.float32]
    pixel_spacing_mm: tuple[float, float] | None
    """(row spacing, column spacing); None when the source does not say."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Slices of one CT or MR series, ready for a model, in geometric order along the slice normal.

    The order follows Image Position (Patient) projected on the normal of Image Orientation (Patient)
    (PS3.3 section C.7.6.2.1.1), never instance numbers or file names.
    """

    slices: tuple[Image, ...]
    positions_mm: tuple[float, ...]
    """Of each slice along the normal, ascending; uneven when the source is."""
    gantry_tilt_degrees: float = 0.0
    """Angle between the slice normal and the line through the slices' corners; 0 for an upright stack."""
    offsets_mm: tuple[tuple[float, float], ...] = ()
    """How far each slice's corner lies from the first one's within the plane, (down the rows, along the columns);
    empty for an upright stack."""

    @property
    def values(self) -> NDArray[np.float32]:
        """The stack after the modality LUT (HU for CT), float32 (slices, rows, columns)."""
        return np.stack([image.values for image in self.slices])

    @property
    def slice_spacing_mm(self) -> float | None:
        """Distance of neighbouring slices when it is even within 1 %, else None."""
        gaps = np.diff(self.positions_mm)
        if len(gaps) == 0 or float(gaps.min()) <= 0 or float(np.ptp(gaps)) > 0.01 * float(gaps.mean()):
            return None
        return float(gaps.mean())


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
    software_version: str
    model: ModelIdentity
    findings: tuple[Finding, ...]
    attributions: tuple[Attribution, ...]
    """The first one is the default explanation, drawn large."""
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
    software_version: str
    model: ModelIdentity
    reason: str
    details: tuple[str, ...] = field(default=())
