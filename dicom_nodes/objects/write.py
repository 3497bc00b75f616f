"""From a data set to the bytes of a Part 10 file: the same data set always gives the same bytes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import dcmwrite

from dicom_nodes.objects.part10 import tolerant

if TYPE_CHECKING:
    from pydicom import Dataset


def to_bytes(dataset: Dataset) -> bytes:
    """Return the file, preamble and file meta information included."""
    with BytesIO() as buffer, tolerant():
        dcmwrite(buffer, dataset, enforce_file_format=True)
        return buffer.getvalue()
