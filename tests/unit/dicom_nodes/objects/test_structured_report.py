from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import highdicom
import numpy as np
import pytest
from content_tree import groups, named, walk
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_nodes.objects.read import read_header, read_image
from dicom_nodes.objects.structured_report import build, build_comprehensive, build_enhanced
from dicom_nodes.objects.write import to_bytes
from service.records import OutboxObject

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


def assert_claims_no_region(group: Dataset) -> None:
    """The group is the image's (TID 1501); what it has in coordinates has no extent and is no Image Region."""
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert named(group, "111030") == []
    (place,) = named(group, "label-place")
    points = np.array(place.GraphicData).reshape(-1, 2)
    assert np.ptp(points, axis=0).tolist() == [0, 0]
    assert points[0, 0] == 0


def test_building_twice_gives_equal_bytes(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    one, two = (to_bytes(build(read.header, read.image, result(read.image))) for _ in range(2))
    assert one == two


def test_an_independent_reader_finds_region_probability_and_area(source: Make, saved: Save, result: Results) -> None:
    pixels = np.zeros((300, 200), dtype=np.uint8)
    document = highdicom.sr.Comprehensive3DSR.from_dataset(
        report(saved(source(pixels, PixelSpacing=["0.5", "0.5"])), result)
    )
    (group,) = document.content.get_planar_roi_measurement_groups()
    assert group.finding_type == Code("233604007", "SCT", "Pneumonia")
    certainty = {each.name.value: (each.value, each.unit.value) for each in group.get_measurements()}
    assert certainty["111012"] == (90.0, "%")
    # The hill of the fixture falls to half within sqrt(0.02 ln 2) of each side.
    assert certainty["42798000"][0] == pytest.approx(np.pi * 0.02 * np.log(2) * 300 * 200 * 0.25, rel=0.03)
    points = group.roi.value
    assert np.allclose((points.min(axis=0) + points.max(axis=0)) / 2, (140, 90), atol=1.0)
    assert group.finding_sites[0].value == codes.SCT.ThoracicStructure


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 79), (59, 0), (59, 79)])
@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
def test_a_mark_in_a_corner_is_outlined_in_that_corner(  # noqa: PLR0917 - three fixtures, two axes
    source: Make, saved: Save, result: Results, row: int, column: int, polarity: str
) -> None:
    grid = np.zeros((60, 80), dtype=np.uint8)
    mark = np.zeros((60, 80), dtype=np.float32)
    mark[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4] = 1
    path = saved(source(grid, PhotometricInterpretation=polarity, PixelAspectRatio=["2", "1"]))
    (region,) = named(report(path, result, attribution=mark), "111030")
    points = np.array(region.GraphicData).reshape(-1, 2)
    assert region.GraphicType == "POLYLINE"
    assert points[0].tolist() == points[-1].tolist()
    assert np.allclose(points.mean(axis=0), [column + 0.5, row + 0.5], atol=4)


@pytest.mark.parametrize("probability", [0.9, 0.1])
def test_every_measurement_group_has_coordinates_on_the_source(
    source: Make, saved: Save, result: Results, probability: float
) -> None:
    path = saved(source())
    written = report(path, result, probability=probability)
    assert groups(written)
    for group in groups(written):
        (region,) = [item for item in walk(group) if item.ValueType == "SCOORD"]
        (image,) = region.ContentSequence
        assert image.RelationshipType == "SELECTED FROM"
        referenced = image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        assert referenced == read_header(path)[0].SOPInstanceUID


def test_below_the_operating_point_no_part_is_outlined_and_no_disease_named(
    source: Make, saved: Save, result: Results
) -> None:
    written = report(saved(source()), result, probability=0.1)
    (group,) = groups(written)
    assert_claims_no_region(group)
    (finding,) = named(group, "121071")
    assert finding.ConceptCodeSequence[0].CodeMeaning == "Pneumonia not indicated"
    (probability,) = named(group, "probability")
    assert probability.ConceptNameCodeSequence[0].CodeMeaning == "Probability of Pneumonia"
    assert probability.MeasuredValueSequence[0].NumericValue == pytest.approx(10)
    assert named(group, "111012") == []
    (evaluation,) = named(group, "233604007")
    assert evaluation.ConceptCodeSequence[0].CodeMeaning == "Not detected"


def test_a_map_without_positive_values_refers_to_the_whole_image(source: Make, saved: Save, result: Results) -> None:
    written = report(saved(source()), result, attribution=np.full((48, 40), -1, dtype=np.float32))
    (group,) = groups(written)
    assert_claims_no_region(group)


def test_labels_of_several_negative_findings_stand_apart(source: Make, saved: Save, result: Results) -> None:
    read = read_image(saved(source()))
    one = result(read.image, probability=0.1)
    other = dataclasses.replace(one.findings[0], label="Effusion")
    two = dataclasses.replace(one, findings=(*one.findings, other))
    first, second = groups(build(read.header, read.image, two))
    places = [named(group, "label-place")[0].GraphicData[1] for group in (first, second)]
    assert places == [0, pytest.approx(0.15 * 48)]


def test_the_probability_is_told_once_for_several_regions(source: Make, saved: Save, result: Results) -> None:
    two = np.zeros((48, 40), dtype=np.float32)
    two[5:15, 5:15], two[30:36, 30:36] = 1, 1
    written = report(saved(source()), result, attribution=two)
    assert len(groups(written)) == 2
    assert len(named(written, "111012")) == 1
    shares = [float(item.MeasuredValueSequence[0].NumericValue) for item in named(written, "influence-share")]
    assert shares == pytest.approx([100 * 100 / 136, 100 * 36 / 136], rel=0.02)
    tracking = {item.UID for item in named(written, "112040")}
    assert len(tracking) == 2


def test_the_algorithm_and_its_explanation_are_coded(source: Make, saved: Save, result: Results) -> None:
    written = report(saved(source()), result)
    assert named(written, "111001")[0].TextValue == "Compact ResNet"
    assert named(written, "111003")[0].TextValue == "1.0.0"
    assert "Grad-CAM: layer=stage4" in [item.TextValue for item in named(written, "111002")]
    assert named(written, "130401")[0].ConceptCodeSequence[0].CodeValue == "130403"
    assert named(written, "121058")[0].ConceptCodeSequence[0].CodeMeaning == "Plain chest X-ray"


def test_area_without_calibration_says_which_plane(source: Make, saved: Save, result: Results) -> None:
    (area,) = named(report(saved(source(ImagerPixelSpacing=["0.2", "0.2"])), result), "42798000")
    assert area.ContentSequence[0].TextValue == "In the detector plane"
    assert named(report(saved(source()), result), "42798000") == []


def test_private_concepts_declare_their_scheme(source: Make, saved: Save, result: Results) -> None:
    written = report(saved(source()), result)
    (scheme,) = written.CodingSchemeIdentificationSequence
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeUID[:5]) == ("99PELLUCID", "2.25.")


@pytest.mark.parametrize(("part", "procedure"), [("CHEST", "Plain chest X-ray"), ("PELVIS", "Plain radiography")])
def test_the_procedure_reported_is_the_body_parts(
    source: Make, saved: Save, result: Results, part: str, procedure: str
) -> None:
    written = report(saved(source(BodyPartExamined=part)), result)
    assert named(written, "121058")[0].ConceptCodeSequence[0].CodeMeaning == procedure


def test_the_three_classes_say_the_same(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    result = several(read.image.grey.shape)
    reports = [builder(read.header, read.image, result) for builder in (build, build_comprehensive, build_enhanced)]
    assert [str(report.SOPClassUID) for report in reports] == [
        "1.2.840.10008.5.1.4.1.1.88.34",
        "1.2.840.10008.5.1.4.1.1.88.33",
        "1.2.840.10008.5.1.4.1.1.88.22",
    ]
    trees = [[(item.ValueType, item.get("TextValue", "")) for item in walk(report)] for report in reports]
    assert trees[0] == trees[1] == trees[2]


def test_only_reports_are_predecessors(source: Make, saved: Save, result: Results) -> None:
    def earlier(sop_class: str, uid: str) -> OutboxObject:
        return OutboxObject(
            sop_instance_uid=uid,
            sop_class_uid=sop_class,
            study_instance_uid="1.2",
            series_instance_uid="1.2.9",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            job_id="job-0",
            kind="k",
            key="k",
            sha256="",
            size=1,
        )

    report_class = "1.2.840.10008.5.1.4.1.1.88.34"
    before = (earlier(report_class, "1.2.3"), earlier("1.2.840.10008.5.1.4.1.1.7", "1.2.4"))
    (item,) = report(saved(source()), result, supersedes=before).PredecessorDocumentsSequence
    (instance,) = item.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert instance.ReferencedSOPInstanceUID == "1.2.3"


def test_the_image_library_says_of_the_source_what_it_says_itself(source: Make, saved: Save, result: Results) -> None:
    written = report(saved(source(ImagerPixelSpacing=["0.2", "0.1"], Modality="DX")), result)
    (library,) = named(written, "111028")
    told = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item
        for item in walk(library)
        if "ConceptNameCodeSequence" in item and item.RelationshipType == "HAS ACQ CONTEXT"
    }
    assert told["Modality"].ConceptCodeSequence[0].CodeValue == "DX"
    assert told["Patient Orientation Row"].TextValue == "L"
    assert told["Horizontal Pixel Spacing"].MeasuredValueSequence[0].NumericValue == pytest.approx(0.1)
    assert told["Pixel Data Rows"].MeasuredValueSequence[0].NumericValue == 48
    (image,) = [item for item in walk(library) if item.ValueType == "IMAGE"]
    assert (
        image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        == written.CurrentRequestedProcedureEvidenceSequence[0]
        .ReferencedSeriesSequence[0]
        .ReferencedSOPSequence[0]
        .ReferencedSOPInstanceUID
    )
    bare = named(report(saved(source(PatientOrientation=None, BodyPartExamined=None)), result), "111028")[0]
    assert not [item for item in walk(bare) if item.get("TextValue")]
