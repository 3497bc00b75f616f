from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from content_tree import walk
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage, EnhancedSRStorage

from dicom_nodes.objects.read import read_image
from dicom_nodes.objects.text_report import build, build_enhanced, build_series
from dicom_nodes.objects.write import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]


def lines(dataset: Dataset) -> list[str]:
    return [" ".join(item.TextValue.split()) for item in walk(dataset) if "TextValue" in item]


def written(dataset: Dataset) -> Dataset:
    return dcmread(io.BytesIO(to_bytes(dataset)))


@pytest.fixture
def report(source: Make, saved: Save, several: Results) -> Callable[..., Dataset]:
    """Build a report with three explanations and read it back."""

    def make(**arguments: float) -> Dataset:
        read = read_image(saved(source()))
        return written(build(read.header, read.image, several(read.image.grey.shape, **arguments)))

    return make


def test_every_operating_point_is_told_with_its_side(report: Callable[..., Dataset]) -> None:
    told = lines(report(probability=0.3))
    assert "Pneumonia not indicated (below operating point): model probability 30.0 %." in told
    assert any("'screening': at or above its threshold of 5.0 %" in line for line in told)
    assert any("'balanced' (in use): below its threshold of 50.0 %" in line for line in told)
    assert "A finding below its operating point does not exclude disease." in told


def test_verdicts_doubts_and_figures_are_told(report: Callable[..., Dataset]) -> None:
    told = "\n".join(lines(report()))
    assert "Grad-CAM for Pneumonia: use with caution. The map moves when the film is shifted." in told
    assert "LIME for Pneumonia: not shown. Deleting its parts changes nothing." in told
    assert "Deletion AUC 0.31 (for comparison 0.52)" in told
    assert "Methods contradict each other: Grad-CAM and LIME mark different parts." in told
    assert "Not computed: SHAP: the time was over." in told


def test_how_to_read_limits_and_model_card_are_told(report: Callable[..., Dataset]) -> None:
    told = "\n".join(lines(report()))
    assert "RISE: Places that were visible in many random masks" in told
    assert "not the extent of disease" in told
    assert "Not validated on adults." in told
    assert "Trained on: Paediatric chest radiographs of one hospital." in told
    assert "Research use; not for primary diagnosis." in told


def test_findings_come_before_who_found_them(report: Callable[..., Dataset]) -> None:
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in report().ContentSequence]
    assert names[1] == "Findings"
    assert names.index("Limits") < names.index("Device Observer Name")


def test_it_has_only_what_a_basic_text_report_may_have(report: Callable[..., Dataset]) -> None:
    dataset = report()
    assert dataset.SOPClassUID == BasicTextSRStorage
    assert {item.ValueType for item in walk(dataset)} <= {"CONTAINER", "TEXT", "CODE", "UIDREF", "IMAGE"}
    assert dataset.SeriesDescription == "AI text report (chest-xray-pneumonia)"


def test_the_enhanced_class_says_the_same(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    result = several(read.image.grey.shape)
    basic, enhanced = build(read.header, read.image, result), build_enhanced(read.header, read.image, result)
    assert enhanced.SOPClassUID == EnhancedSRStorage
    assert lines(basic) == lines(enhanced)
    assert basic.SOPInstanceUID != enhanced.SOPInstanceUID


def test_a_series_names_the_slices_that_mattered(stack: Callable[..., tuple], several: Results) -> None:
    headers, series = stack(7)
    dataset = written(build_series(headers, series, several((64, 48), slices=7)))
    assert any("slices that mattered: Slice 3 of 7, image number 5; Slice 4 of 7" in line for line in lines(dataset))
    cited = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in walk(dataset) if item.ValueType == "IMAGE"
    ]
    assert cited == [header.SOPInstanceUID for header in headers[2:5]]
    evidence = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert len(evidence.ReferencedSOPSequence) == 7


def test_building_twice_gives_equal_bytes(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    one, two = (to_bytes(build(read.header, read.image, several(read.image.grey.shape))) for _ in range(2))
    assert one == two


def test_a_consensus_tells_how_far_its_methods_differ(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    result = several(read.image.grey.shape)
    joined = dataclasses.replace(result.attributions[2], title="Consensus", method="consensus")
    flat = dataclasses.replace(joined, spread=np.full(joined.map.shape, 0.25 * joined.map.max(), dtype=np.float32))
    told = lines(build(read.header, read.image, dataclasses.replace(result, attributions=(flat,))))
    assert any("the methods differ by 25 % of its maximum on average" in line for line in told)


def test_what_of_a_series_was_left_out_is_told(stack: Callable[..., tuple], several: Results) -> None:
    headers, series = stack(3)
    result = dataclasses.replace(several((64, 48), slices=3), notes=("2 scouts were left out",))
    assert "What was read: 2 scouts were left out." in lines(build_series(headers, series, result))


def test_findings_are_broken_into_lines_that_no_viewer_cuts(report: Callable[..., Dataset]) -> None:
    findings = [
        item.TextValue
        for item in walk(report())
        if item.get("ValueType") == "TEXT" and item.ConceptNameCodeSequence[0].CodeMeaning == "Finding"
    ]
    broken = [line for finding in findings for line in finding.split("\r\n")]
    assert len(broken) > len(findings)
    assert all(0 < len(line) <= 80 for line in broken)
    assert not any(line.startswith("%") for line in broken)
