"""From the files of a study to one CT or MR series in geometric order.

A study holds scouts, reformats, several series and repeats. What is read is chosen by rule, the same for every order
of arrival, and what is left out is said in a note for the report:

1. Instances that are no slices (no pixels, several frames, no position, scouts) are dropped.
2. The slices of a series are grouped by orientation, matrix and pixel size; its largest group is the series.
3. Of several series the one with the most slices is read, original before derived; ties go to the lower series number.
4. Order is the position projected on the normal (PS3.3 C.7.6.2.1.1); of slices at one place the first acquired is kept.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects.attributes import integer, number, numbers, spacing, text, texts
from dicom_nodes.objects.read import read_header, read_image
from service.errors import InvalidInstanceError, NotEligibleError
from service.images import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

    from service.images import Image, ImageHeader

    Accepts = Callable[[ImageHeader], str | None]

SAME_DIRECTION = 0.9998
"""Cosine of 1.1 degrees: slices of one stack differ by rounding only."""
SAME_PLACE_MM = 0.01
SMALLEST_TILT_DEGREES = 0.1
MAXIMUM_SLICES = 1500
MAXIMUM_PIXELS = 500_000_000
"""Of a whole series; its grey values take 8 bytes each."""
UNREADABLE_SHARE = 0.1
"""More unreadable slices than this leave holes that no result should hide."""
_SCOUTS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM"})


@dataclass(frozen=True, kw_only=True)
class SourceSeries:
    """One series to read: its headers without pixel data, in the order of `series.slices`, and its slices."""

    headers: tuple[Dataset, ...]
    series: Series
    notes: tuple[str, ...]
    """What was left out and why, and what is uneven, in words for the report; no patient data."""


@dataclass(frozen=True, kw_only=True)
class _Slice:
    path: Path
    header: Dataset
    summary: ImageHeader
    corner: NDArray[np.float64]
    directions: NDArray[np.float64]
    """Along the rows (increasing column), down the columns (increasing row), and the normal; each a row of 3."""

    @property
    def grid(self) -> tuple[int, int, float, float]:
        down, across = spacing(self.header, "PixelSpacing") or (0.0, 0.0)
        return self.summary.rows, self.summary.columns, round(down, 4), round(across, 4)

    @property
    def acquired(self) -> tuple[int, int, str]:
        """Orders slices at one place: the first acquisition counts."""
        return (
            integer(self.header, "AcquisitionNumber"),
            integer(self.header, "InstanceNumber"),
            self.summary.sop_instance_uid,
        )


def read_series(paths: Iterable[Path], *, accepts: Accepts | None = None, minimum_slices: int = 2) -> SourceSeries:
    """Read the series of a study that a model is to read.

    Args:
        paths: Part 10 files of one study, in any order.
        accepts: says of an instance why it is not to be read, or None; see `service.eligibility`.
        minimum_slices: fewer are no series.

    Raises:
        NotEligibleError: no series is left, the message says what was left out; or the files are of several patients.
        UndecodableError: more slices are unreadable than a result could hide.
    """
    left_out: Counter[str] = Counter()
    patients: set[str] = set()
    by_series: dict[str, list[_Slice]] = defaultdict(list)
    for path in paths:
        found = _slice_of(path, accepts)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            by_series[text(found.header, "SeriesInstanceUID")].append(found)
            patients.add(text(found.header, "PatientID"))
    if len(patients) > 1:
        raise NotEligibleError(f"images of {len(patients)} patients came under one Study Instance UID")
    stacks = [_stack(slices, left_out) for _, slices in sorted(by_series.items())]
    readable = [stack for stack in stacks if len(stack) >= minimum_slices]
    if not readable:
        longest = max((len(stack) for stack in stacks), default=0)
        reason = f"no series of at least {minimum_slices} slices (the longest has {longest})"
        raise NotEligibleError("; ".join([reason, *_sentences(left_out)]))
    chosen = min(readable, key=_preference)
    for stack in stacks:
        if stack is not chosen:
            left_out["of another series of the study"] += len(stack)
    return _read(chosen, left_out)


def _slice_of(path: Path, accepts: Accepts | None) -> _Slice | str:
    """Return the slice in a file, or why there is none."""
    try:
        header, summary = read_header(path)
    except InvalidInstanceError:
        return "unreadable"
    reason = _no_slice(header, summary) or (accepts(summary) if accepts else None)
    if reason:
        return reason
    corner, cosines = numbers(header, "ImagePositionPatient"), numbers(header, "ImageOrientationPatient")
    directions = _directions(cosines)
    if len(corner) != 3 or directions is None:  # noqa: PLR2004 - x, y, z
        return "without a position in the patient"
    return _Slice(path=path, header=header, summary=summary, corner=np.array(corner), directions=directions)


def _no_slice(header: Dataset, summary: ImageHeader) -> str | None:
    if summary.rows < 1 or summary.columns < 1:
        return "without pixels"
    if summary.frames > 1:
        return "with several frames"
    return "localisers" if _SCOUTS & {value.upper() for value in texts(header, "ImageType")} else None


def _directions(cosines: tuple[float, ...]) -> NDArray[np.float64] | None:
    if len(cosines) != 6:  # noqa: PLR2004 - two directions of x, y, z
        return None
    along, down = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along), np.linalg.norm(down)
    # Unit vectors at right angles (PS3.3 C.7.6.2.1.1); rounding in text is forgiven, nonsense is not.
    if not all(abs(length - 1) < 0.01 for length in lengths) or abs(float(along @ down)) > 0.01:  # noqa: PLR2004
        return None
    along, down = along / lengths[0], down / lengths[1]
    return np.stack([along, down, np.cross(along, down)])


def _stack(slices: Sequence[_Slice], left_out: Counter[str]) -> list[_Slice]:
    """Return the largest group of parallel slices of one grid, in geometric order, one per place."""
    groups: list[list[_Slice]] = []
    for entry in sorted(slices, key=lambda entry: entry.acquired):
        for group in groups:
            if group[0].grid == entry.grid and _parallel(group[0], entry):
                group.append(entry)
                break
        else:
            groups.append([entry])
    largest = max(groups, key=len)
    left_out["of another orientation or matrix"] += len(slices) - len(largest)
    normal = largest[0].directions[2]
    placed: list[_Slice] = []
    # A stable sort: of slices at one place the first acquired comes first, and stays.
    for entry in sorted(largest, key=lambda entry: float(entry.corner @ normal)):
        if placed and abs(float((entry.corner - placed[-1].corner) @ normal)) < SAME_PLACE_MM:
            left_out["at a place that another slice has (a repeat, phase or echo)"] += 1
        else:
            placed.append(entry)
    return placed


def _parallel(one: _Slice, other: _Slice) -> bool:
    return bool(np.all(np.sum(one.directions * other.directions, axis=1) >= SAME_DIRECTION))


def _preference(stack: Sequence[_Slice]) -> tuple[bool, int, int, str]:
    header = stack[0].header
    derived = "DERIVED" in {value.upper() for value in texts(header, "ImageType")}
    return derived, -len(stack), integer(header, "SeriesNumber"), text(header, "SeriesInstanceUID")


def _read(stack: Sequence[_Slice], left_out: Counter[str]) -> SourceSeries:
    pixels = sum(entry.summary.rows * entry.summary.columns for entry in stack)
    if len(stack) > MAXIMUM_SLICES or pixels > MAXIMUM_PIXELS:
        raise NotEligibleError(
            f"a series of {len(stack)} slices and {pixels} pixels; the limits are {MAXIMUM_SLICES} and {MAXIMUM_PIXELS}"
        )
    images: list[Image] = []
    headers: list[Dataset] = []
    kept: list[_Slice] = []
    for entry in stack:
        try:
            source = read_image(entry.path)
        except NotEligibleError as error:
            left_out["unreadable"] += 1
            if left_out["unreadable"] > UNREADABLE_SHARE * len(stack):
                raise
            del error
            continue
        images.append(source.image)
        headers.append(source.header)
        kept.append(entry)
    return SourceSeries(
        headers=tuple(headers),
        series=_series(kept, images),
        notes=(*_sentences(left_out), *_unevenness(kept)),
    )


def _series(stack: Sequence[_Slice], images: Sequence[Image]) -> Series:
    along, down, normal = stack[0].directions
    corners = np.stack([entry.corner for entry in stack]) - stack[0].corner
    offsets = np.stack([corners @ down, corners @ along], axis=1)
    positions = np.stack([entry.corner for entry in stack]) @ normal
    tilt = _tilt(corners[-1], normal)
    return Series(
        slices=tuple(images),
        positions_mm=tuple(float(value) for value in positions),
        gantry_tilt_degrees=tilt,
        offsets_mm=tuple((float(row), float(column)) for row, column in offsets) if tilt else (),
    )


def _tilt(span: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """Return the angle between the normal and the line from the first corner to the last, in degrees."""
    length = float(np.linalg.norm(span))
    if length == 0:
        return 0.0
    degrees = math.degrees(math.acos(min(1.0, abs(float(span @ normal)) / length)))
    return round(degrees, 3) if degrees >= SMALLEST_TILT_DEGREES else 0.0


def _unevenness(stack: Sequence[_Slice]) -> list[str]:
    corners = np.stack([entry.corner for entry in stack])
    gaps = np.diff(corners @ stack[0].directions[2])
    if len(gaps) == 0 or float(np.ptp(gaps)) <= 0.01 * float(gaps.mean()):
        return []
    thick = number(stack[0].header, "SliceThickness")
    missing = int(np.sum(gaps > 1.8 * np.median(gaps))) if thick else 0
    note = f"slice distances from {gaps.min():.1f} to {gaps.max():.1f} mm"
    return [f"{note}; slices may be missing at {missing} places" if missing else note]


def _sentences(left_out: Counter[str]) -> list[str]:
    return [f"{count} images left out: {what}" for what, count in sorted(left_out.items()) if count]
