from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from dicom_nodes.objects.files import dicom_files
from dicom_nodes.objects.read import read_header
from service.errors import InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Save = Callable[[Dataset], Path]


def directory(folder: Path, *names: list[str]) -> Path:
    """Write a DICOMDIR that names files."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MediaStorageDirectoryStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    records = []
    for name in names:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.add_new("ReferencedFileID", "LO", name)
        records.append(record)
    dataset.DirectoryRecordSequence = records
    dataset.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def test_files_that_a_directory_names_are_listed_even_where_they_are_missing(
    tmp_path: Path, source: Callable[..., FileDataset], saved: Save
) -> None:
    film = saved(source())
    found = dicom_files([directory(tmp_path, [film.name], ["IMAGES", "GONE"], ["..", "..", "etc", "passwd"])])
    assert found == [tmp_path / "IMAGES" / "GONE", film]
    with pytest.raises(InvalidInstanceError, match="not there"):
        read_header(found[0])
    assert dicom_files([tmp_path]) == found


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, bytes(128) + b"DICM" + b"\xff" * 200])
def test_a_directory_that_is_none_is_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "DICOMDIR").write_bytes(content)
    with pytest.raises(InvalidInstanceError, match="DICOMDIR"):
        dicom_files([tmp_path])


def test_a_directory_that_names_only_what_lies_elsewhere_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(InvalidInstanceError, match="names no file"):
        dicom_files([directory(tmp_path, ["..", "secret"])])


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    assert dicom_files([tmp_path]) == []
    with pytest.raises(InvalidInstanceError, match="no file"):
        read_header(tmp_path / "pipe.dcm")
