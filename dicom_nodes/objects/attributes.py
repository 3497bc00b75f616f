"""Reads single attributes of a received data set without trusting them: a wrong value reads as absent."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

if TYPE_CHECKING:
    from pydicom import Dataset


_SMALLEST = 1e-4
"""mm; a tenth of what a detector for microscopy has."""
_LONGEST = 20.0
"""Of a pixel's sides, the longer over the shorter; a film drawn with more would be a line."""
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""Where a source may say how large its pixels are, the patient's or calibrated size first (PS3.3 10.7.1)."""


def text(dataset: Dataset, keyword: str) -> str:
    """Return the first value as stripped text; empty when absent."""
    values = texts(dataset, keyword)
    return values[0] if values else ""


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return every value as stripped text."""
    return tuple(str(value).strip(" \0") for value in _values(dataset, keyword))


def code_string(dataset: Dataset, keyword: str) -> str:
    """Return the first value as a code string (PS3.5 section 6.2): upper case, at most 16 characters, none odd.

    It goes into reasons that are logged, and into objects of ours.
    """
    return re.sub(r"[^A-Z0-9_ ]", "?", text(dataset, keyword).upper())[:16]


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the values as finite floats; empty when any is not one."""
    try:
        values = tuple(float(value) for value in _values(dataset, keyword))
    except (TypeError, ValueError):
        return ()
    return values if all(math.isfinite(value) for value in values) else ()


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value as a finite float; None when absent or not one."""
    values = numbers(dataset, keyword)
    return values[0] if values else None


def integer(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """Return the first value as int; `default` when absent or not one."""
    value = number(dataset, keyword)
    return default if value is None else int(value)


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence; empty when absent or no sequence."""
    value = dataset.get(keyword)
    return tuple(value) if isinstance(value, DicomSequence) else ()


def spacing(dataset: Dataset, *keywords: str) -> tuple[float, float] | None:
    """Return (row, column) spacing in mm of the first keyword that has two positive values, as a detector has them."""
    for keyword in keywords:
        values = numbers(dataset, keyword)
        if len(values) != 2 or not all(_SMALLEST < value < 1 / _SMALLEST for value in values):  # noqa: PLR2004
            continue
        if 1 / _LONGEST <= values[0] / values[1] <= _LONGEST:
            return values[0], values[1]
    return None


def aspect_ratio(dataset: Dataset) -> float:
    """Return the height of a pixel over its width: from a spacing, else Pixel Aspect Ratio, else 1."""
    found = spacing(macro(dataset, "PixelMeasuresSequence"), *SPACINGS) or spacing(dataset, "PixelAspectRatio")
    return found[0] / found[1] if found else 1.0


def macro(dataset: Dataset, keyword: str) -> Dataset:
    """Return where an attribute group lives: the first frame's item, the shared item, or the data set.

    Enhanced objects keep rescale, window and spacing in functional groups (PS3.3 C.7.6.16).
    """
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in items(dataset, groups)[:1]:
            for item in items(group, keyword)[:1]:
                return item
    return dataset


def _values(dataset: Dataset, keyword: str) -> list[Any]:
    value = dataset.get(keyword)
    if value is None or value == "" or isinstance(value, DicomSequence | bytes):
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]
