"""dcmjs, which browsers' viewers read DICOM with, finds in every report what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from viewers.dcmjs import assert_finds_every_item

if TYPE_CHECKING:
    from viewers.studies import Study


@pytest.mark.parametrize("study", ["phantom-003", "phantom-004", "CT", "MR"])
@pytest.mark.parametrize("kind", ["structured-report", "text-report"])
def test_dcmjs_reads_every_item(radiographs: dict[str, Study], heads: dict[str, Study], study: str, kind: str) -> None:
    assert_finds_every_item((radiographs | heads)[study].objects[kind])
