"""What a Structured Report says of explanations: verdicts, figures, reasons, and what was not measured."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from content_tree import groups, named, walk
from pydicom import dcmread

from dicom_nodes.objects.read import read_image
from dicom_nodes.objects.structured_report import build
from dicom_nodes.objects.write import to_bytes
from service.results import Measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]


def report(path: Path, result: Results, **arguments: object) -> Dataset:
    read = read_image(path)
    return dcmread(io.BytesIO(to_bytes(build(read.header, read.image, result(read.image, **arguments)))))


def test_verdict_threshold_and_limits_are_told(source: Make, saved: Save, result: Results) -> None:
    written = report(saved(source()), result)
    words = " ".join(item.TextValue for item in walk(written) if "TextValue" in item)
    assert "Pneumonia indicated (at or above operating point)" in words
    assert "sensitivity 96.0 %, specificity 94.0 %" in words
    assert "Not validated on adults." in words
    assert "Research use; not for primary diagnosis." in words
    (threshold,) = named(written, "threshold")
    assert threshold.MeasuredValueSequence[0].NumericValue == 50


def test_only_the_default_explanation_has_groups_with_verdict_and_figures(
    source: Make, saved: Save, several: Results
) -> None:
    """Viewers draw and label every group at once: the outlines of several methods would be read by nobody."""
    read = read_image(saved(source()))
    written = build(read.header, read.image, several(read.image.grey.shape))
    (group,) = groups(written)
    assert named(group, "112039")[0].TextValue == "Pneumonia: model influence, region 1"
    (verdict,) = named(group, "trust")
    assert verdict.ConceptCodeSequence[0].CodeValue == "caution"
    assert verdict.ContentSequence[0].TextValue == "The map moves when the film is shifted."
    (figure,) = named(group, "deletion-auc")
    assert figure.MeasuredValueSequence[0].NumericValue == pytest.approx(0.31)
    assert figure.ContentSequence[0].MeasuredValueSequence[0].NumericValue == pytest.approx(0.52)
    assert len(named(written, "111012")) == 1


def test_every_other_explanation_is_evaluated_with_its_outline_if_it_may_be_shown(
    source: Make, saved: Save, several: Results
) -> None:
    read = read_image(saved(source()))
    written = build(read.header, read.image, several(read.image.grey.shape))
    (container,) = [item for item in written.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "C0034375"]
    failed, reliable = [item for item in container.ContentSequence if item.ValueType == "CODE"]
    assert failed.ConceptCodeSequence[0].CodeMeaning == "LIME"
    (verdict,) = named(failed, "trust")
    assert verdict.ConceptCodeSequence[0].CodeValue == "not-shown"
    assert verdict.ContentSequence[0].TextValue == "Deleting its parts changes nothing."
    assert len(named(failed, "deletion-auc")) == 1
    assert named(failed, "111030") == []
    assert named(reliable, "trust")[0].ConceptCodeSequence[0].CodeValue == "reliable"
    (region,) = named(reliable, "111030")
    assert region.RelationshipType == "INFERRED FROM"
    points = np.array(region.GraphicData).reshape(-1, 2)
    assert np.allclose((points.min(axis=0) + points.max(axis=0)) / 2, (0.65 * 40, 0.35 * 48), atol=1.0)


def test_where_a_map_lies_is_told_as_per_cent_before_other_figures(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    result = several(read.image.grey.shape)
    first = result.attributions[0]
    assert first.assessment is not None
    lungs = Measure(name="energy-lungs", title="Map inside the lungs", value=0.94, baseline=0.4)
    assessed = dataclasses.replace(first.assessment, measures=(*first.assessment.measures, lungs))
    told = dataclasses.replace(result, attributions=(dataclasses.replace(first, assessment=assessed),))
    (group,) = groups(build(read.header, read.image, told))
    numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in numbers]
    assert names[:4] == ["Certainty of Finding", "Operating point", "Share of influence", "Map inside the lungs"]
    measured = numbers[3].MeasuredValueSequence[0]
    assert measured.NumericValue == pytest.approx(94)
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "%"


def test_names_of_figures_fit_a_code_value_and_stay_apart(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    written = build(read.header, read.image, several(read.image.grey.shape))
    values = {item.ConceptNameCodeSequence[0].CodeValue for item in walk(written) if "ConceptNameCodeSequence" in item}
    assert all(len(value) <= 16 for value in values)
    assert any(value.startswith("stability-") for value in values)


def test_contradictions_and_every_operating_point_are_told(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    written = build(read.header, read.image, several(read.image.grey.shape))
    told = [item.TextValue for item in walk(written) if "TextValue" in item]
    assert "Methods contradict each other: Grad-CAM and LIME mark different parts." in told
    assert any("'screening'" in line for line in told)


def test_what_makes_no_sense_of_an_input_is_said_beside_the_verdict(
    source: Make, saved: Save, several: Results
) -> None:
    read = read_image(saved(source()))
    result = several(read.image.grey.shape)
    first = result.attributions[0]
    assert first.assessment is not None
    assessment = dataclasses.replace(first.assessment, senseless=("Map inside the lungs is not measured: no chest.",))
    told = dataclasses.replace(
        result, attributions=(dataclasses.replace(first, assessment=assessment), *result.attributions[1:])
    )
    (verdict,) = named(groups(build(read.header, read.image, told))[0], "trust")
    (unasked,) = [
        item for item in verdict.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "not-measured"
    ]
    assert unasked.TextValue == "Map inside the lungs is not measured: no chest."
