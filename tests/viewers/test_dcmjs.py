"""dcmjs, which browsers' viewers read DICOM with, finds in every report what was written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from require import require_tool
from viewers.conftest import package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset
    from viewers.studies import Study

SCRIPT = Path(__file__).parent / "read_report.js"


def read(file: Path) -> dict[str, Any]:
    """Read a report with dcmjs."""
    library = package("dcmjs") / "build" / "dcmjs.js"
    command = [require_tool("node"), str(SCRIPT), str(library), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def descend(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", []):
        yield from descend(child)


@pytest.mark.parametrize("study", ["phantom-003", "phantom-004", "CT", "MR"])
@pytest.mark.parametrize("kind", ["structured-report", "text-report"])
def test_dcmjs_reads_every_item(radiographs: dict[str, Study], heads: dict[str, Study], study: str, kind: str) -> None:
    file = (radiographs | heads)[study].objects[kind]
    report, found = dcmread(file), read(file)
    items = list(descend(report))
    of_type = {kind: [item for item in items if item.get("ValueType") == kind] for kind in ("TEXT", "NUM", "CODE")}
    assert found["title"] == report.ConceptNameCodeSequence[0].CodeMeaning
    assert found["texts"] == [item.TextValue for item in of_type["TEXT"]]
    assert found["codes"] == [item.ConceptCodeSequence[0].CodeMeaning for item in of_type["CODE"]]
    assert found["numbers"] == [
        [item.ConceptNameCodeSequence[0].CodeMeaning, float(item.MeasuredValueSequence[0].NumericValue)]
        for item in of_type["NUM"]
    ]
    outlines = [list(item.GraphicData) for item in items if "GraphicData" in item]
    assert [[pytest.approx(value) for value in outline] for outline in outlines] == found["outlines"]
    images = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items if item.get("ValueType") == "IMAGE"
    ]
    assert found["images"] == images
    assert images
