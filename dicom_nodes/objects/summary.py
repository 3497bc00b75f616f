"""Reads back what one of our structured reports says, for tables and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_nodes.objects import codes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

_FINDING = ("121071", "DCM")
_PROBABILITIES = (("111012", "DCM"), ("probability", codes.PRIVATE_SCHEME))
"""Above and below the operating point."""
_VISUAL_EXPLANATION = ("130401", "DCM")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The first finding of a report."""

    finding: str
    probability: float
    """In [0, 1]."""
    method: str


def summarize(dataset: Dataset) -> Summary | None:
    """Return the first finding with a probability; None when the object is no such report."""
    items = list(_items(dataset))
    certainty = [item for item in items if _name(item) in _PROBABILITIES and item.ValueType == "NUM"]
    if not certainty:
        return None
    return Summary(
        finding=_meaning(items, _FINDING),
        probability=float(certainty[0].MeasuredValueSequence[0].NumericValue) / 100.0,
        method=_meaning(items, _VISUAL_EXPLANATION),
    )


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _name(item: Dataset) -> tuple[str, str]:
    codes = item.get("ConceptNameCodeSequence")
    return (codes[0].get("CodeValue", ""), codes[0].CodingSchemeDesignator) if codes else ("", "")


def _meaning(items: list[Dataset], name: tuple[str, str]) -> str:
    for item in items:
        if _name(item) == name and item.ValueType == "CODE":
            return str(item.ConceptCodeSequence[0].CodeMeaning)
    return ""
