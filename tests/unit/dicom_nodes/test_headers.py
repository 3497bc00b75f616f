from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_nodes.headers import MAXIMUM_DEPTH, file_meta_information, is_uid, read_header
from dicom_nodes.objects.identity import MANUFACTURER, MODEL_NAME
from service.errors import InvalidInstanceError
from tests.network import CR, cr_image

if TYPE_CHECKING:
    from pathlib import Path


def encode(dataset: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(buffer, dataset)
    data = buffer.getvalue()
    if syntax == DeflatedExplicitVRLittleEndian:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflater.compress(data) + deflater.flush()
    return data


def header_of(data: bytes, folder: Path, syntax: str = ExplicitVRLittleEndian):  # noqa: ANN201
    path = folder / "instance"
    path.write_bytes(b"meta" + data)
    return read_header(path, offset=4, transfer_syntax_uid=syntax)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_the_header_is_read_in_every_encoding(syntax: str, tmp_path: Path) -> None:
    dataset = cr_image("1.2.840.99")
    dataset.add_new(0x00081140, "SQ", Sequence([cr_image("9.9")]))
    dataset[0x00081140].is_undefined_length = True
    header = header_of(encode(dataset, syntax), tmp_path, syntax)
    assert (header.sop_class_uid, header.sop_instance_uid) == (CR, "1.2.840.99")
    assert (header.study_instance_uid, header.series_instance_uid) == ("1.2.3", "1.2.3.1")
    assert (header.modality, header.ours) == ("CR", False)


def test_what_we_made_is_known_by_its_equipment(tmp_path: Path) -> None:
    ours = cr_image(Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL_NAME)
    assert header_of(encode(ours, ExplicitVRLittleEndian), tmp_path).ours
    other = cr_image(Manufacturer=MANUFACTURER, ManufacturerModelName="another machine")
    assert not header_of(encode(other, ExplicitVRLittleEndian), tmp_path).ours


@pytest.mark.parametrize(
    "uid", ["", "../../etc/passwd", "1.2.3/4", "1" * 65, "1..2", ".1", "1.", "1.2.a", "1.2\n", "\uff11.\uff12"]
)
def test_a_malformed_uid_is_refused(uid: str) -> None:
    assert not is_uid(uid)


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008.1.2", "2.25." + "9" * 39, "1.2.03", "1" * 64])
def test_a_uid_is_let_through(uid: str) -> None:
    assert is_uid(uid)


def test_a_data_set_without_study_is_refused(tmp_path: Path) -> None:
    dataset = cr_image()
    del dataset.StudyInstanceUID
    with pytest.raises(InvalidInstanceError, match="Study Instance UID is missing"):
        header_of(encode(dataset, ExplicitVRLittleEndian), tmp_path)


def test_a_data_set_in_another_encoding_than_agreed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInstanceError):
        header_of(encode(cr_image(), ExplicitVRLittleEndian), tmp_path, ImplicitVRLittleEndian)


def test_an_element_that_claims_four_gigabytes_is_refused(tmp_path: Path) -> None:
    data = struct.pack("<HH2sHI", 8, 1, b"OB", 0, 0xFFFFFFF0) + b"\x00" * 100
    with pytest.raises(InvalidInstanceError, match="ends early"):
        header_of(data, tmp_path)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    level = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(InvalidInstanceError, match="nested too deeply"):
        header_of(level * MAXIMUM_DEPTH, tmp_path)


def test_a_deflate_bomb_grows_to_one_megabyte_only(tmp_path: Path) -> None:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = struct.pack("<HH2sHI", 8, 1, b"OB", 0, 1 << 28)
    bomb = deflater.compress(head) + b"".join(deflater.compress(bytes(1 << 20)) for _ in range(256)) + deflater.flush()
    with pytest.raises(InvalidInstanceError, match="ends early"):
        header_of(bomb, tmp_path, DeflatedExplicitVRLittleEndian)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_data_sets_are_read_or_refused_and_nothing_else(data: st.DataObject, tmp_path_factory) -> None:  # noqa: ANN001
    dataset = cr_image()
    dataset.add_new(0x00081140, "SQ", Sequence([cr_image("9.9")]))
    original = bytearray(encode(dataset, ExplicitVRLittleEndian))
    for _ in range(data.draw(st.integers(1, 6))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = header_of(bytes(original), tmp_path_factory.getbasetemp())
    except InvalidInstanceError:
        return
    assert is_uid(header.sop_instance_uid)


def test_the_file_meta_information_is_what_pydicom_reads(tmp_path: Path) -> None:
    meta = file_meta_information(
        sop_class_uid=CR, sop_instance_uid="1.2.3", transfer_syntax_uid=ExplicitVRLittleEndian, source_ae="PACS"
    )
    path = tmp_path / "file.dcm"
    path.write_bytes(meta + encode(cr_image("1.2.3"), ExplicitVRLittleEndian))
    read = dcmread(path)
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert read.file_meta.SourceApplicationEntityTitle == "PACS"
    assert read.file_meta.FileMetaInformationGroupLength == len(meta) - 144
    assert read.PatientName == "Mustermann^Erika"
