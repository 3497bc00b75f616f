"""Checks parameters of explainers; the message is what an administrator reads beside the pipeline's name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def whole(name: str, value: object, least: int, most: int) -> int:
    """Return a whole number within [least, most].

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return value


def real(name: str, value: object, least: float, most: float) -> float:
    """Return a finite number within [least, most].

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}")
    return float(value)


def choice(name: str, value: object, known: Sequence[str]) -> str:
    """Return one of the known words.

    Raises:
        ValueError: it is another one.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    return value
