"""The content tree of a Structured Report (PS3.3 section C.17.3), for the tests of reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset


def walk(dataset: Dataset) -> Iterator[Dataset]:
    """Every content item below a data set, parents before their children."""
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from walk(item)


def named(dataset: Dataset, value: str) -> list[Dataset]:
    """All content items whose concept name has this code value."""
    return [
        item
        for item in walk(dataset)
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == value
    ]


def groups(dataset: Dataset) -> list[Dataset]:
    """All measurement groups (TID 1410 and 1501)."""
    return named(dataset, "125007")
