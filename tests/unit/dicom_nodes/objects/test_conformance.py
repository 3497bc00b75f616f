"""Every object against independent validators, for a matrix of sources."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import dcmread
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from require import require_tool
from viewers.dcmjs import assert_finds_every_item

from dicom_nodes.objects import (
    key_objects,
    parametric_map,
    pdf_report,
    presentation_state,
    refusal_report,
    secondary_capture,
    segmentation,
    structured_report,
    text_report,
)
from dicom_nodes.objects.read import SourceImage, read_image
from dicom_nodes.objects.write import to_bytes
from service.errors import ObjectRefusedError
from service.images import Series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Refusal, Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

PICTURES = (SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage)
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
TALL = np.arange(80 * 64, dtype=np.uint16).reshape(80, 64) % 4096
WIDE = np.ascontiguousarray(TALL.T)
SIGNED = (TALL.astype(np.int16) - 2048).astype(np.int16)
SOURCES: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "monochrome1": (TALL, {"PhotometricInterpretation": "MONOCHROME1"}),
    "monochrome2": (TALL, {"PhotometricInterpretation": "MONOCHROME2"}),
    "wide": (WIDE, {}),
    "signed 15 bit": (SIGNED, {"BitsStored": 15, "HighBit": 14}),
    "japanese": (TALL, {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Mizuhara^Sora=水原^空"}),
    "cyrillic": (TALL, {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Озёрный^Лев"}),
    "arabic": (TALL, {"SpecificCharacterSet": "ISO_IR 127", "PatientName": "سليم^ندى"}),
    "no type 2": (TALL, dict.fromkeys(TYPE_2)),
    "empty study id": (TALL, {"StudyID": ""}),
    "pixel spacing": (TALL, {"PixelSpacing": ["0.143", "0.143"]}),
    "imager spacing": (TALL, {"ImagerPixelSpacing": ["0.143", "0.143"]}),
    "no modality": (TALL, {"Modality": None}),
    "aspect": (TALL, {"PixelAspectRatio": ["2", "1"]}),
    "no body part": (TALL, {"BodyPartExamined": None, "PatientOrientation": None}),
    "paired body part": (TALL, {"BodyPartExamined": "KNEE", "Laterality": "L"}),
    "unpaired body part with a side": (TALL, {"BodyPartExamined": "CHEST", "Laterality": "L"}),
    "image laterality": (TALL, {"BodyPartExamined": "HAND", "ImageLaterality": "R"}),
    "time zone": (TALL, {"TimezoneOffsetFromUTC": "-0330"}),
    "colour": (np.full((64, 64, 3), 99, dtype=np.uint8), {}),
    "anonymised": (TALL, {"PatientIdentityRemoved": "YES"}),
}
REAL = (
    "chest/nih-dx-sc-sopclass.dcm",
    "chest/philips-mono1-15bit-j2k.dcm",
    "ct-series/000.dcm",
    "ct-series/027.dcm",
    "mr-series/slice66.dcm",
    "not-a-chest/dog-thorax-lateral-dx.dcm",
)


@pytest.fixture
def objects(several: Results, refusal: Refusal, tmp_path: Path) -> Callable[..., list[Path]]:
    """Write every object that a source can give rise to; variants and negatives too with `thorough`."""

    def write(read: SourceImage, *, thorough: bool = False) -> list[Path]:
        header, image = read.header, read.image
        positive = several(image.grey.shape)
        built = {
            "picture": secondary_capture.build_single(header, image, positive),
            "report": structured_report.build(header, image, positive),
            "text": text_report.build(header, image, positive),
            "page": pdf_report.build(header, image, positive),
            "refusal": refusal_report.build(header, refusal),
        }
        if image.header.samples_per_pixel == 1:
            built["state"] = presentation_state.build(header, image, positive)
        if thorough:
            negative = several(image.grey.shape, probability=0.1)
            built |= {
                "pictures": secondary_capture.build(header, image, positive),
                "pictures-uncompressed": secondary_capture.build_uncompressed(header, image, positive),
                "report-comprehensive": structured_report.build_comprehensive(header, image, positive),
                "report-enhanced": structured_report.build_enhanced(header, image, positive),
                "report-negative": structured_report.build(header, image, negative),
                "text-enhanced": text_report.build_enhanced(header, image, positive),
                "state-negative": presentation_state.build(header, image, negative),
            }
        return kept(built, tmp_path)

    return write


def kept(built: dict[str, Dataset], folder: Path) -> list[Path]:
    paths = []
    for name, dataset in built.items():
        path = folder / f"{name}.dcm"
        path.write_bytes(to_bytes(dataset))
        paths.append(path)
    return paths


def check(paths: list[Path], header: Dataset) -> None:
    """Ask dciodvfy and dcmtk about each file."""
    for path in paths:
        said = run("dciodvfy", "-new", str(path))
        errors = [line for line in said.stderr.splitlines() + said.stdout.splitlines() if line.startswith("Error")]
        assert errors == [], path.name
        written = dcmread(path)
        if written.SOPClassUID in PICTURES:
            check_picture(path)
        elif written.Modality in {"SR", "KO"}:
            dump = run("dsrdump", str(path))
            assert dump.returncode == 0, dump.stderr
            assert "\nE:" not in dump.stderr
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyID", "AccessionNumber", "StudyDate"):
            assert str(written[keyword].value or "") == str(header.get(keyword) or ""), keyword


def check_picture(path: Path) -> None:
    """Let dcmtk's own decoder render the picture."""
    png = path.with_suffix(".png")
    rendered = run("dcmj2pnm", "+on", str(path), str(png))
    assert rendered.returncode == 0, rendered.stderr
    written = dcmread(path, stop_before_pixels=True)
    with Picture.open(png) as picture:
        assert picture.size == (written.Columns, written.Rows)
        assert picture.convert("L").getextrema()[1] > 200


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [require_tool(tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


@pytest.mark.parametrize("name", SOURCES)
def test_every_object_of_a_generated_source_conforms(
    source: Make, saved: Save, objects: Callable[..., list[Path]], name: str
) -> None:
    pixels, attributes = SOURCES[name]
    read = read_image(saved(source(pixels, **attributes)))
    check(objects(read), read.header)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_every_object_of_a_compressed_source_conforms(
    source: Make, saved: Save, objects: Callable[..., list[Path]], syntax: str
) -> None:
    dataset = source(TALL, BitsStored=12, HighBit=11)
    dataset.compress(syntax, generate_instance_uid=False)
    read = read_image(saved(dataset))
    check(objects(read), read.header)


def test_every_variant_conforms(source: Make, saved: Save, objects: Callable[..., list[Path]]) -> None:
    read = read_image(saved(source(TALL, ImagerPixelSpacing=["0.143", "0.143"])))
    check(objects(read, thorough=True), read.header)


@pytest.mark.parametrize("name", REAL)
def test_every_object_of_a_real_source_conforms(
    shared_dicom: Path, objects: Callable[..., list[Path]], name: str
) -> None:
    read = read_image(shared_dicom / name)
    check(objects(read), read.header)


@pytest.mark.parametrize(
    "attributes", [{}, {"BodyPartExamined": None}, {"SOPClassUID": MRImageStorage, "Modality": "MR"}]
)
def test_every_object_of_a_generated_series_conforms(
    stack: Callable[..., Any], several: Results, tmp_path: Path, attributes: dict[str, Any]
) -> None:
    headers, series = stack(5, **attributes)
    check(series_objects(headers, series, several((64, 48), slices=5), tmp_path), headers[0])


@pytest.mark.parametrize("folder", ["ct-series", "mr-series"])
def test_every_object_of_a_real_series_conforms(
    shared_dicom: Path, several: Results, tmp_path: Path, folder: str
) -> None:
    read = [read_image(path) for path in sorted((shared_dicom / folder).glob("*.dcm"))]
    read.sort(key=lambda each: float(each.header.ImagePositionPatient[2]))
    positions = tuple(float(each.header.ImagePositionPatient[2]) for each in read)
    series = Series(slices=tuple(each.image for each in read), positions_mm=positions)
    headers = [each.header for each in read]
    result = several(read[0].image.grey.shape, slices=len(read))
    paths = series_objects(headers, series, result, tmp_path)
    check(paths, headers[0])
    # The CT's gantry was tilted and its slices are unevenly spaced: it has no objects in space.
    assert {"segmentation.dcm", "parametric-map.dcm"} & {path.name for path in paths} == (
        set() if folder == "ct-series" else {"segmentation.dcm", "parametric-map.dcm"}
    )


@pytest.mark.parametrize("probability", [0.9, 0.1])
def test_dcmjs_finds_every_item_of_a_report(
    source: Make, saved: Save, several: Results, tmp_path: Path, probability: float
) -> None:
    """It comes with the viewers, so this runs where they were opened once; `make viewers` and CI always run it."""
    _, names = SOURCES["japanese"]
    read = read_image(saved(source(TALL, **names)))
    result = several(read.image.grey.shape, probability=probability)
    built = {"report": structured_report.build(read.header, read.image, result)}
    built["text"] = text_report.build(read.header, read.image, result)
    for path in kept(built, tmp_path):
        assert_finds_every_item(path)


def series_objects(headers: list[Dataset], series: Series, result: Result, folder: Path) -> list[Path]:
    builders = {
        "picture": secondary_capture.build_series_single,
        "report": structured_report.build_series,
        "report-comprehensive": structured_report.build_series_comprehensive,
        "report-enhanced": structured_report.build_series_enhanced,
        "text": text_report.build_series,
        "state": presentation_state.build_series,
        "page": pdf_report.build_series,
        "segmentation": segmentation.build_series,
        "parametric-map": parametric_map.build_series,
        "key-objects": key_objects.build_series,
    }
    built = {}
    for name, build in builders.items():
        try:
            built[name] = build(headers, series, result)
        except ObjectRefusedError:
            assert name in {"segmentation", "parametric-map"}
    return kept(built, folder)
