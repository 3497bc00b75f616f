from __future__ import annotations

import io
from typing import TYPE_CHECKING

from content_tree import walk
from pydicom import dcmread

from dicom_nodes.objects.read import read_header
from dicom_nodes.objects.refusal_report import build
from dicom_nodes.objects.write import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Refusal

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]


def test_a_refusal_needs_nothing_but_uids(source: Make, saved: Save, refusal: Refusal) -> None:
    kept = {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"}
    dataset = source()
    for element in list(dataset):
        if element.keyword not in kept:
            del dataset[element.tag]
    header, _ = read_header(saved(dataset))
    written = dcmread(io.BytesIO(to_bytes(build(header, refusal))))
    texts = [item.TextValue for item in walk(written) if "TextValue" in item]
    assert "Not analysed: The image is a lateral view." in texts
    assert "View position: LL" in texts
    assert written.StudyInstanceUID == header.StudyInstanceUID
    assert to_bytes(build(header, refusal)) == to_bytes(build(header, refusal))
