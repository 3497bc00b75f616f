"""Where the slices of a series lie in the patient, and whether objects in space may be made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects.attributes import number, numbers, spacing, text
from service.errors import ObjectRefusedError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from dicom_nodes.objects.subject import Subject

_SAME_DIRECTION = 1e-3
_EVEN = 0.01
"""Gaps that differ by less than this share of their mean are even."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """An upright stack of evenly spaced, parallel slices in one frame of reference (PS3.3 C.7.6.2.1.1)."""

    frame_of_reference_uid: str
    position_reference: str
    orientation: tuple[float, ...]
    """Direction cosines of the rows, then of the columns."""
    positions: tuple[tuple[float, ...], ...]
    """Of the centre of each slice's first pixel, in mm."""
    pixel_spacing: tuple[float, float]
    """Row spacing, column spacing in mm."""
    slice_spacing: float
    slice_thickness: float


def stack_geometry(about: Subject) -> Geometry:
    """Read the geometry of a series.

    The standard can place each frame of a stack with gaps or tilt, but readers that build a volume of it put
    the map beside its place, silently; the pictures and the report lose nothing by their absence.

    Raises:
        ObjectRefusedError: the source does not say where its slices lie, or they are no even, upright stack.
    """
    headers = about.headers
    references = {text(header, "FrameOfReferenceUID") for header in headers}
    if references == {""}:
        raise ObjectRefusedError("the series has no frame of reference")
    if len(references) > 1:
        raise ObjectRefusedError("the slices lie in different frames of reference")
    if len({image.grey.shape for image in about.images}) > 1:
        raise ObjectRefusedError("the slices differ in rows or columns")
    distances = _one_spacing(headers)
    orientation, positions = _orientation(headers), _positions(headers)
    gap = _gap(orientation, positions, distances)
    thickness = number(headers[0], "SliceThickness") or gap
    return Geometry(
        frame_of_reference_uid=references.pop(),
        position_reference=text(headers[0], "PositionReferenceIndicator"),
        orientation=tuple(float(value) for value in orientation),
        positions=tuple(tuple(float(value) for value in position) for position in positions),
        pixel_spacing=distances,
        slice_spacing=gap or thickness,
        slice_thickness=thickness,
    )


def _one_spacing(headers: tuple[Dataset, ...]) -> tuple[float, float]:
    found = [spacing(header, "PixelSpacing") for header in headers]
    first = found[0]
    if first is None or not all(each is not None and np.allclose(each, first, rtol=1e-4) for each in found):
        raise ObjectRefusedError("the slices have no pixel spacing in common")
    return first


def _orientation(headers: tuple[Dataset, ...]) -> NDArray[np.float64]:
    found = [numbers(header, "ImageOrientationPatient") for header in headers]
    if any(len(each) != 6 for each in found):  # noqa: PLR2004 - two directions in space
        raise ObjectRefusedError("a slice does not say how it lies in the patient")
    directions = np.array(found)
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        raise ObjectRefusedError("the slices are not parallel")
    return np.asarray(directions[0])


def _positions(headers: tuple[Dataset, ...]) -> NDArray[np.float64]:
    found = [numbers(header, "ImagePositionPatient") for header in headers]
    if any(len(each) != 3 for each in found):  # noqa: PLR2004 - a point in space
        raise ObjectRefusedError("a slice does not say where it lies in the patient")
    return np.array(found)


def _gap(orientation: NDArray[np.float64], positions: NDArray[np.float64], distances: tuple[float, float]) -> float:
    """Return the even distance of neighbouring slices along their normal; 0 for a single slice."""
    if len(positions) == 1:
        return 0.0
    normal = np.cross(orientation[:3], orientation[3:])
    along = positions @ (normal / np.linalg.norm(normal))
    gaps = np.abs(np.diff(along))
    if gaps.min() <= 0 or np.ptp(gaps) > _EVEN * gaps.mean():
        raise ObjectRefusedError(f"the slices are unevenly spaced, {gaps.min():.2f} to {gaps.max():.2f} mm apart")
    sideways = (positions - positions[0]) - np.outer(along - along[0], normal)
    shear = float(np.linalg.norm(sideways, axis=1).max())
    if shear > 0.5 * min(distances):
        angle = np.degrees(np.arctan2(shear, abs(along[-1] - along[0])))
        raise ObjectRefusedError(
            f"the stack is sheared by {shear:.1f} mm: the gantry was tilted by {angle:.1f} degrees"
        )
    return float(gaps.mean())
