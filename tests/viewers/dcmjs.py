"""Reads reports with dcmjs, as browsers' viewers do, and compares what it finds with what was written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

LIBRARY = Path(__file__).parent.parent.parent / "build" / "viewers" / "dcmjs" / "build" / "dcmjs.js"
SCRIPT = Path(__file__).parent / "read_report.js"


def assert_finds_every_item(file: Path) -> None:
    """Every text, code, number, outline and image of a report is found, in order; skips without dcmjs, fails in CI."""
    node = shutil.which("node")
    if node is None or not LIBRARY.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail("dcmjs is not unpacked: run make test")
        pytest.skip("dcmjs is not unpacked: run make viewers once")
    done = subprocess.run([node, str(SCRIPT), str(LIBRARY), str(file)], capture_output=True, text=True, check=True)
    found, report = json.loads(done.stdout), dcmread(file)
    items = list(_descend(report))
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


def _descend(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", []):
        yield from _descend(child)
