"""Images and series of slices as a model reads them and a human looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What an image says of itself, as far as eligibility and captions need it; empty where it says nothing.

    It carries no patient data.
    """

    sop_instance_uid: str
    sop_class_uid: str = ""
    conversion_type: str = ""
    """How a Secondary Capture came about (0008,0064); images from a modality say nothing."""
    marked_up: bool = False
    """It says that annotation is burned in (0028,0301), names images that it was made from (0008,2112), or calls itself
    derived and secondary (0008,0008)."""
    modality: str = ""
    body_part: str = ""
    """Body Part Examined (0018,0015), else what Anatomic Region Sequence (0008,2218) says."""
    view_position: str = ""
    """View Position (0018,5101), else what View Code Sequence (0054,0220) says."""
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
    study_description: str = ""
    for_processing: bool = False
    """What a detector gave, before it is made fit to be looked at (Presentation Intent Type, 0008,0068)."""


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
