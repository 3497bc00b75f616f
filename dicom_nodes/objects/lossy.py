"""Once lossy, always lossy: what is derived from a compressed image says so (PS3.3 C.7.6.1.1.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_nodes.objects.attributes import text, texts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset


def add_lossy(sources: Iterable[Dataset], dataset: Dataset) -> None:
    """Write whether any of the sources was compressed lossily before, with its ratio and method where it says them."""
    compressed = next((source for source in sources if text(source, "LossyImageCompression") == "01"), None)
    if compressed is None:
        dataset.LossyImageCompression = "00"
        return
    dataset.LossyImageCompression = "01"
    ratio = texts(compressed, "LossyImageCompressionRatio")
    dataset.LossyImageCompressionRatio = ratio[-1] if ratio and ratio[-1] else "1"
    method = texts(compressed, "LossyImageCompressionMethod")
    if method and method[-1]:
        dataset.LossyImageCompressionMethod = method[-1]
