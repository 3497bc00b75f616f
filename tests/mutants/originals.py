"""The files that mutants are made of: small radiographs in every kind of encoding, of a patient with marked names."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKS = ("Geheimnis", "Verborgen", "MARK4711", "19010203", "Straszenmarke", "ACC4711")
"""What must never be found in a log, a status or a reason."""
ROWS, COLUMNS = 40, 48
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
COMPRESSED = (RLELossless, JPEG2000Lossless, JPEGLSLossless)


def originals() -> dict[str, bytes]:
    """Return Part 10 files by the UID of their transfer syntax."""
    return {str(syntax): _file(syntax) for syntax in (*NATIVE, *COMPRESSED)}


def _file(syntax: UID) -> bytes:
    grid = (np.add.outer(np.arange(ROWS) ** 2, np.arange(COLUMNS) * 31) % 4096).astype("<u2")
    dataset = _dataset(grid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax in COMPRESSED:
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = grid.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return buffer.getvalue()


def _dataset(grid: NDArray[Any]) -> FileDataset:
    dataset = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4", "1.2.3", "1.2.3.5"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientName = "Geheimnis^Verborgen"
    dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "MARK4711", "19010203", "O"
    dataset.PatientAddress, dataset.AccessionNumber = "Straszenmarke 1", "ACC4711"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20261122", "101500", "S1"
    dataset.ReferringPhysicianName = "Verborgen^A"
    dataset.Modality, dataset.Manufacturer, dataset.BodyPartExamined = "CR", "Acme", "CHEST"
    dataset.PatientOrientation, dataset.PixelSpacing, dataset.PatientAge = ["L", "F"], ["0.2", "0.2"], "040Y"
    dataset.InstanceNumber, dataset.SeriesNumber = 3, 1
    dataset.ProcedureCodeSequence = [_code()]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = grid.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelPaddingValue, dataset.NumberOfFrames = 0, 1
    dataset.WindowCenter, dataset.WindowWidth = "2000", "3000"
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
    dataset.VOILUTSequence = [table]
    dataset.PixelData = grid.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _code() -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "Chest"
    return item
