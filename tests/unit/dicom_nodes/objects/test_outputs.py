"""What every output has in common, whichever is named in a pipeline."""

from __future__ import annotations

import io
import re
import tomllib
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom import dcmread

from dicom_nodes.objects import codes, identity, refusal_report
from dicom_nodes.objects.catalogue import CATALOGUE, SOURCE
from dicom_nodes.objects.legends import legend
from dicom_nodes.objects.read import read_image
from dicom_nodes.objects.write import to_bytes
from service.pipelines import SERIES_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Refusal, Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

IMAGES = {entry.name: entry for entry in entry_points(group="pellucid.outputs")}
SERIES = {entry.name: entry for entry in entry_points(group="pellucid.series_outputs")}
METHODS = {entry.name for entry in entry_points(group="pellucid.explainers")} | {"consensus"}
JAPANESE = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Mizuhara^Sora=水原^空", "StudyID": ""}
COPIED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID", "AccessionNumber")


CATALOGUED = {entry.output: entry for entry in CATALOGUE}


def assert_common(name: str, data: bytes, header: Dataset) -> None:
    """Patient, study, equipment and place in the study are as every object of ours has them."""
    written = dcmread(io.BytesIO(data))
    entry = CATALOGUED[name]
    assert written.SOPClassUID in entry.sop_classes
    modality = header.Modality if entry.modality == SOURCE else entry.modality
    assert (written.Modality, written.SeriesNumber) == (modality, 9000 + entry.place)
    assert written.file_meta.TransferSyntaxUID == entry.transfer_syntax
    assert private_codes(written) <= {*codes.PRIVATE_CONCEPTS, *METHODS, "deletion-auc", "stability-82f949"}
    assert written.SpecificCharacterSet == "ISO_IR 192"
    for keyword in COPIED:
        assert str(written[keyword].value or "") == str(header.get(keyword) or ""), keyword
    assert written.StudyInstanceUID == header.StudyInstanceUID
    assert written.SeriesInstanceUID != header.SeriesInstanceUID
    assert written.SeriesDescription.startswith("AI ")
    assert written.SeriesDescription.endswith("(chest-xray-pneumonia)")
    assert identity.is_our_equipment(written.Manufacturer, written.ManufacturerModelName)
    (equipment,) = written.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert equipment.DeviceUID == identity.device_uid(model_sha256="ab" * 32)
    assert header.SOPInstanceUID in str(written)
    assert all(not element.tag.is_private for element in written)
    for element in written.iterall():
        assert element.VR != "UI" or all(
            re.fullmatch(r"[0-9.]{1,64}", str(value))
            for value in ([element.value] if element.VM == 1 else element.value)
        )


def private_codes(dataset: Dataset) -> set[str]:
    """The values of every code of our own scheme in a data set."""
    found = set()
    for element in dataset.iterall():
        if element.VR == "SQ":
            items = [item for item in element.value if item.get("CodingSchemeDesignator") == codes.PRIVATE_SCHEME]
            found |= {item.CodeValue for item in items if "CodeValue" in item}
    return found


def test_the_catalogue_is_what_is_registered() -> None:
    assert {entry.output for entry in CATALOGUE} == set(SERIES)
    assert {entry.output for entry in CATALOGUE if entry.images} == set(IMAGES)


def test_every_explanation_method_has_a_legend_of_its_own() -> None:
    unknown = legend("no such method")
    assert METHODS
    assert [name for name in METHODS if legend(name) == unknown] == []


@pytest.mark.parametrize("name", IMAGES)
def test_every_output_of_an_image_lies_in_its_study_and_is_repeatable(
    source: Make, saved: Save, several: Results, name: str
) -> None:
    pixels = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)
    dataset = source(pixels, **JAPANESE)
    dataset.private_block(0x0011, "ACME", create=True).add_new(1, "LO", "odd")
    read = read_image(saved(dataset))
    build = IMAGES[name].load()
    one, two = (to_bytes(build(read.header, read.image, several(read.image.grey.shape))) for _ in range(2))
    assert one == two
    assert_common(name, one, read.header)


@pytest.mark.parametrize("name", SERIES)
def test_every_output_of_a_series_lies_in_its_study_and_is_repeatable(
    stack: Callable[..., Any], several: Results, name: str
) -> None:
    headers, series = stack(3, **JAPANESE)
    build = SERIES[name].load()
    one, two = (to_bytes(build(headers, series, several((64, 48), slices=3))) for _ in range(2))
    assert one == two
    assert_common(name, one, headers[1])


def test_outputs_of_one_study_never_share_an_instance(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source()))
    result = several(read.image.grey.shape)
    light = {name: entry for name, entry in IMAGES.items() if not name.startswith("secondary-capture")}
    built = [entry.load()(read.header, read.image, result) for entry in light.values()]
    assert len({dataset.SOPInstanceUID for dataset in built}) == len(light)
    assert len({dataset.SeriesInstanceUID for dataset in built}) == len(light)


def test_two_pipelines_share_no_series_number(stack: Callable[..., Any], several: Results, refusal: Refusal) -> None:
    headers, series = stack(3)
    results = [replace(several((64, 48), slices=3), series_number=number) for number in (9000, 9100)]
    notes = [replace(refusal, series_number=number) for number in (9000, 9100)]
    one, two = (
        {SERIES[name].load()(headers, series, result).SeriesNumber for name in SERIES}
        | {refusal_report.build(headers[0], note).SeriesNumber}
        for result, note in zip(results, notes, strict=True)
    )
    assert one == set(range(9001, 9010))
    assert two == set(range(9101, 9110))


def test_places_of_outputs_leave_room_for_a_hospitals_own() -> None:
    assert {entry.place for entry in CATALOGUE} | {refusal_report.PLACE} == set(range(1, 10))
    assert SERIES_NUMBERS == 100


def test_the_documentation_lists_every_output() -> None:
    text = (Path(__file__).parents[4] / "docs" / "objects.md").read_text(encoding="utf-8")
    for name in {*IMAGES, *SERIES}:
        stem = name.removesuffix("-comprehensive").removesuffix("-enhanced")
        assert f"`{name}`" in text or (f"`{stem}`" in text and f"`{name.removeprefix(stem)}`" in text), name


def test_the_profile_for_ohif_names_outputs_that_exist_and_none_that_ohif_does_not_show() -> None:
    text = (Path(__file__).parents[4] / "docs" / "viewers.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    named = set(tomllib.loads(block)["peers"]["ohif"]["outputs"])
    assert named <= {*IMAGES, *SERIES}
    hidden = {line.split("|")[1].strip() for line in text.splitlines() if "**not shown**" in line}
    assert hidden == {"presentation state", "key objects (CT, MR)"}
    assert named.isdisjoint({"presentation-state", "key-objects"})
