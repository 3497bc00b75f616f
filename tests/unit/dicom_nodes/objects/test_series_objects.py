"""Segmentation, parametric map, key objects and pages of CT and MR series."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

from dicom_nodes.objects import key_objects, parametric_map, secondary_capture, segmentation, structured_report, subject
from dicom_nodes.objects.scene import large_scenes
from dicom_nodes.objects.write import to_bytes
from service.errors import ObjectRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom import Dataset

    from service.images import Series
    from service.results import Result

    Stack = Callable[..., tuple[list[Dataset], Series]]
    Results = Callable[..., Result]

SHAPE = (64, 48)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def written(dataset: Dataset) -> Dataset:
    return dcmread(io.BytesIO(to_bytes(dataset)))


def run(*command: str) -> None:
    """Run one of dcmqi's programs, which the `test` extra installs beside Python."""
    program = Path(sys.executable).parent / command[0]
    if not program.exists():
        pytest.skip("dcmqi is not installed: pip install -e '.[test]'")
    done = subprocess.run([str(program), *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def affine(file: Path) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Directions, origin and sizes of an NRRD header."""
    header = file.read_bytes().split(b"\n\n", 1)[0].decode()
    fields = dict(line.split(": ", 1) for line in header.splitlines() if ": " in line)
    vectors = [[float(v) for v in part.strip("()").split(",")] for part in fields["space directions"].split()]
    origin = [float(v) for v in fields["space origin"].strip("()").split(",")]
    return np.array(vectors), np.array(origin), [int(v) for v in fields["sizes"].split()]


def frame_uids(dataset: Dataset) -> list[str]:
    return [
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
def test_a_segment_lies_on_its_source_slices(stack: Stack, several: Results, orientation: tuple[float, ...]) -> None:
    headers, series = stack(7, orientation=orientation)
    dataset = written(segmentation.build_series(headers, series, several(SHAPE, slices=7)))
    assert dataset.FrameOfReferenceUID == "2.25.77"
    assert frame_uids(dataset) == [header.SOPInstanceUID for header in headers[2:5]]
    for item, header in zip(dataset.PerFrameFunctionalGroupsSequence, headers[2:5], strict=True):
        position = item.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose([float(v) for v in position], [float(v) for v in header.ImagePositionPatient])
    (shared,) = dataset.SharedFunctionalGroupsSequence
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == [0.5, 0.5]
    assert float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices) == pytest.approx(2.0)


@pytest.mark.parametrize("module", [segmentation, parametric_map])
def test_what_is_derived_of_compressed_slices_says_so(stack: Stack, several: Results, module: Any) -> None:
    headers, series = stack(7)
    assert written(module.build_series(headers, series, several(SHAPE, slices=7))).LossyImageCompression == "00"
    headers[4].LossyImageCompression, headers[4].LossyImageCompressionMethod = "01", "ISO_15444_1"
    dataset = written(module.build_series(headers, series, several(SHAPE, slices=7)))
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionMethod) == ("01", "ISO_15444_1")


def test_a_segment_marks_what_is_above_half_of_the_stack_maximum(stack: Stack, several: Results) -> None:
    headers, series = stack(7)
    result = several(SHAPE, slices=7)
    dataset = written(segmentation.build_series(headers, series, result))
    expected = result.attributions[0].map >= 0.5 * result.attributions[0].map.max()
    assert np.array_equal(np.asarray(pixel_array(dataset)).astype(bool), expected[2:5])
    (segment,) = dataset.SegmentSequence
    assert segment.SegmentLabel == "AI influence: Pneumonia"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Visual explanation"


def test_dcmqi_reads_the_segment_where_it_is(stack: Stack, several: Results, tmp_path: Path) -> None:
    headers, series = stack(7)
    file = tmp_path / "seg.dcm"
    file.write_bytes(to_bytes(segmentation.build_series(headers, series, several(SHAPE, slices=7))))
    run("segimage2itkimage", "--inputDICOM", str(file), "--outputDirectory", str(tmp_path), "-t", "nrrd", "-p", "s")
    directions, origin, sizes = affine(tmp_path / "s-1.nrrd")
    assert np.allclose(np.abs(directions).sum(axis=1), [0.5, 0.5, 2.0])
    assert np.allclose(origin, [float(v) for v in headers[2].ImagePositionPatient])
    assert sizes == [48, 64, 3]


def test_dcmqi_reads_the_map_where_it_is(stack: Stack, several: Results, tmp_path: Path) -> None:
    headers, series = stack(7)
    file = tmp_path / "map.dcm"
    file.write_bytes(to_bytes(parametric_map.build_series(headers, series, several(SHAPE, slices=7))))
    run("paramap2itkimage", "--inputDICOM", str(file), "--outputDirectory", str(tmp_path), "-t", "nrrd")
    _, origin, sizes = affine(tmp_path / "pmap.nrrd")
    assert np.allclose(origin, [float(v) for v in headers[0].ImagePositionPatient])
    assert sizes == [48, 64, 7]
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["QuantityValueCode"]["CodeValue"] == "130403"
    assert meta["AnatomicRegionSequence"]["CodeMeaning"] == "Head"


def test_a_map_holds_the_numbers_themselves(stack: Stack, several: Results) -> None:
    headers, series = stack(7)
    result = several(SHAPE, slices=7)
    dataset = written(parametric_map.build_series(headers, series, result))
    values = np.frombuffer(dataset.FloatPixelData, dtype="<f4").reshape(7, *SHAPE)
    assert np.array_equal(values, result.attributions[0].map)
    assert dataset.ContentQualification == "RESEARCH"
    assert frame_uids(dataset) == [header.SOPInstanceUID for header in headers]


def test_a_method_without_a_code_is_a_visual_explanation_by_a_declared_method(stack: Stack, several: Results) -> None:
    headers, series = stack(5)
    result = several(SHAPE, slices=5)
    rise = dataclasses.replace(result, attributions=result.attributions[2:])
    dataset = parametric_map.build_series(headers, series, rise)
    (mapping,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    quantity, method = (item.ConceptCodeSequence[0] for item in mapping.QuantityDefinitionSequence)
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("130401", "DCM")
    assert (method.CodeValue, method.CodingSchemeDesignator) == ("rise", "99PELLUCID")
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99PELLUCID"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "uneven": ({"gaps": (2.0, 3.0)}, "unevenly spaced, 2.00 to 3.00 mm"),
    "tilted": ({"tilt_mm": 0.7}, "sheared by 4.2 mm: the gantry was tilted by 19.3 degrees"),
    "doubled": ({"gaps": (2.0, 0.0)}, "unevenly spaced"),
    "no frame of reference": ({"FrameOfReferenceUID": None}, "no frame of reference"),
    "no spacing": ({"PixelSpacing": None}, "no pixel spacing in common"),
    "no orientation": ({"ImageOrientationPatient": None}, "how it lies"),
    "no position": ({"ImagePositionPatient": None}, "where it lies"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("build", [segmentation.build_series, parametric_map.build_series])
def test_a_stack_that_would_be_misplaced_is_refused_with_the_reason(
    stack: Stack, several: Results, name: str, build: Callable[..., Dataset]
) -> None:
    arguments, reason = BAD[name]
    headers, series = stack(7, **arguments)
    with pytest.raises(ObjectRefusedError, match=reason):
        build(headers, series, several(SHAPE, slices=7))


@pytest.mark.parametrize("name", ["uneven", "tilted", "no frame of reference"])
def test_pictures_and_reports_need_no_geometry(stack: Stack, several: Results, name: str) -> None:
    headers, series = stack(5, **BAD[name][0])
    result = several(SHAPE, slices=5)
    assert secondary_capture.build_series_single(headers, series, result).Rows > 0
    assert structured_report.build_series(headers, series, result).ContentSequence


@pytest.mark.parametrize("module", [segmentation, parametric_map, key_objects])
def test_a_negative_series_gets_nothing_that_reads_as_disease(stack: Stack, several: Results, module: Any) -> None:
    headers, series = stack(5)
    with pytest.raises(ObjectRefusedError, match="operating point"):
        module.build_series(headers, series, several(SHAPE, slices=5, probability=0.1))


def test_a_map_that_failed_its_checks_is_not_sent(stack: Stack, several: Results) -> None:
    headers, series = stack(5)
    result = several(SHAPE, slices=5)
    failed = dataclasses.replace(result, attributions=result.attributions[1:2])
    for build in (segmentation.build_series, parametric_map.build_series):
        with pytest.raises(ObjectRefusedError, match=r"map (to show|that may be shown)"):
            build(headers, series, failed)


def test_key_objects_are_the_slices_that_mattered(stack: Stack, several: Results) -> None:
    headers, series = stack(7)
    dataset = written(key_objects.build_series(headers, series, several(SHAPE, slices=7)))
    images = [item for item in dataset.ContentSequence if item.ValueType == "IMAGE"]
    uids = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images]
    assert uids == [header.SOPInstanceUID for header in headers[2:5]]
    evidence = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert [item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence] == uids
    assert dataset.ConceptNameCodeSequence[0].CodeValue == "113000"


def test_probabilities_of_slices_decide_which_mattered(stack: Stack, several: Results) -> None:
    headers, series = stack(5)
    result = several(SHAPE, slices=5)
    finding = dataclasses.replace(result.findings[0], slice_probabilities=(0.1, 0.2, 0.3, 0.9, 0.6))
    dataset = key_objects.build_series(headers, series, dataclasses.replace(result, findings=(finding,)))
    images = [item for item in dataset.ContentSequence if item.ValueType == "IMAGE"]
    uids = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images]
    assert uids == [header.SOPInstanceUID for header in headers[3:]]


def test_the_pages_are_the_slices_that_mattered_then_the_comparison(stack: Stack, several: Results) -> None:
    headers, series = stack(7)
    dataset = written(secondary_capture.build_series(headers, series, several(SHAPE, slices=7)))
    # Three slices; the default method has the first, so the two others take one page.
    assert dataset.NumberOfFrames == 4
    assert list(dataset.PageNumberVector) == [1, 2, 3, 4]
    assert (dataset.Modality, "PixelSpacing" in dataset) == ("CT", True)
    assert len(dataset.SourceImageSequence) == 7


def test_regions_of_a_report_lie_on_the_slices_that_mattered(stack: Stack, several: Results) -> None:
    headers, series = stack(7)
    dataset = structured_report.build_series(headers, series, several(SHAPE, slices=7))
    (measurements,) = [
        item for item in dataset.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]
    marked = [
        child.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for group in measurements.ContentSequence
        for child in group.ContentSequence
        if child.ValueType == "SCOORD"
    ]
    assert marked == [header.SOPInstanceUID for header in headers[2:5]]


@pytest.mark.parametrize(
    "build",
    [segmentation.build_series, parametric_map.build_series, key_objects.build_series, structured_report.build_series],
)
def test_building_twice_gives_equal_bytes(stack: Stack, several: Results, build: Callable[..., Dataset]) -> None:
    headers, series = stack(5)
    one, two = (to_bytes(build(headers, series, several(SHAPE, slices=5))) for _ in range(2))
    assert one == two


def test_a_header_for_every_slice_is_asked_for(stack: Stack, several: Results) -> None:
    headers, series = stack(5)
    with pytest.raises(ValueError, match="one header per slice"):
        key_objects.build_series(headers[1:], series, several(SHAPE, slices=5))


def test_a_series_without_a_map_to_show_has_one_page(stack: Stack, several: Results) -> None:
    headers, series = stack(7)
    result = several(SHAPE, slices=7)
    finding = dataclasses.replace(result.findings[0], slice_probabilities=(0.1, 0.2, 0.9, 0.8, 0.9, 0.1, 0.1))
    failed = dataclasses.replace(result, findings=(finding,), attributions=(result.attributions[1],) * 2)
    dataset = written(secondary_capture.build_series(headers, series, failed))
    assert "NumberOfFrames" not in dataset
    assert "no explanation" in dataset.DerivationDescription


def test_a_slice_that_mattered_and_was_not_explained_has_no_page_of_its_own(stack: Stack, several: Results) -> None:
    headers, series = stack(5)
    result = several(SHAPE, slices=5)
    finding = dataclasses.replace(result.findings[0], slice_probabilities=(0.1, 0.7, 0.9, 0.8, 0.1))
    values = result.attributions[0].map.copy()
    values[[0, 1, 4]] = 0
    only = dataclasses.replace(result.attributions[0], map=values)
    told = dataclasses.replace(result, findings=(finding,), attributions=(only,))
    about = subject.of_series(headers, series, told)
    assert [scene.place.split(",")[0] for scene in large_scenes(about)] == ["Slice 3 of 5", "Slice 4 of 5"]
    keys = key_objects.build_series(headers, series, told)
    assert sum(item.ValueType == "IMAGE" for item in keys.ContentSequence) == 3
