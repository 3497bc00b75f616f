"""Writes a phantom's pixels as a DX or CR image, as a modality would, of a patient who plainly does not exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from dicom_nodes.objects.codes import item
from dicom_nodes.objects.identity import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    derived_uid,
)
from dicom_nodes.objects.write import to_bytes
from service.concepts import Code

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

BITS = 12
HEIGHT_MM = 400.0
"""Of the film; a phantom has the size of an adult's chest on a 40 cm detector."""


@dataclass(frozen=True, kw_only=True)
class PhantomStudy:
    """One single-image study to write."""

    pixels: NDArray[np.uint16]
    """(rows, columns), 12 bits, MONOCHROME2 sense."""
    name: str
    """Identifies the phantom; the same name always gives the same UIDs."""
    number: int
    """Of the phantom among its siblings, from 1; becomes part of the patient's name."""
    taken_at: datetime
    """Local time of the exposure."""
    modality: Literal["DX", "CR"] = "DX"
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2"


def write_phantom(path: Path, study: PhantomStudy) -> None:
    """Write the study's only instance as a Part 10 file."""
    path.write_bytes(to_bytes(phantom_dataset(study)))


def phantom_dataset(study: PhantomStudy) -> Dataset:
    """Return the instance: DX for presentation (PS3.3 A.26) or CR (A.2)."""
    digital = study.modality == "DX"
    sop_class = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    uid = UID(derived_uid("phantom", study.name, study.modality, study.photometric, "instance"))
    dataset = FileDataset("", {}, file_meta=phantom_meta(sop_class, uid), preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid
    _add_patient(dataset, study)
    _add_study_and_series(dataset, study)
    _add_equipment(dataset)
    _add_acquisition(dataset, study)
    _add_pixels(dataset, study)
    if digital:
        _add_digital_x_ray(dataset, study)
    return dataset


def phantom_meta(sop_class: UID, uid: UID) -> FileMetaDataset:
    """Return the file meta information (PS3.10 section 7.1) of a phantom's instance."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _add_patient(dataset: Dataset, study: PhantomStudy) -> None:
    dataset.PatientName = f"Phantom^Procedural {study.number}"
    dataset.PatientID = f"PHANTOM-{study.number:04d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientComments = "Procedural phantom. Not a patient."


def _add_study_and_series(dataset: Dataset, study: PhantomStudy) -> None:
    date, time = study.taken_at.strftime("%Y%m%d"), study.taken_at.strftime("%H%M%S")
    dataset.StudyInstanceUID = derived_uid("phantom", study.name, study.modality, study.photometric, "study")
    dataset.SeriesInstanceUID = derived_uid("phantom", study.name, study.modality, study.photometric, "series")
    for keyword in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{keyword}Date", date)
        setattr(dataset, f"{keyword}Time", time)
    dataset.StudyID = f"P{study.number}"
    dataset.AccessionNumber = f"PHANTOM{study.number:04d}"
    dataset.StudyDescription = "Chest phantom"
    dataset.SeriesDescription = "Chest PA"
    dataset.ReferringPhysicianName = ""
    dataset.Modality = study.modality
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1


def _add_equipment(dataset: Dataset) -> None:
    # The image is a source, not a result: another model name keeps it apart from what Pellucid derives.
    dataset.Manufacturer = "Procedural phantom"
    dataset.ManufacturerModelName = "Chest phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    dataset.InstitutionName = "No hospital"


def _add_acquisition(dataset: Dataset, study: PhantomStudy) -> None:
    rows = study.pixels.shape[0]
    spacing = round(HEIGHT_MM / rows, 6)
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.PixelSpacing = [spacing, spacing]
    dataset.PixelSpacingCalibrationType = "GEOMETRY"
    dataset.PixelSpacingCalibrationDescription = "Phantom in the detector's plane"
    dataset.KVP = "120"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def _add_pixels(dataset: Dataset, study: PhantomStudy) -> None:
    inverted = study.photometric == "MONOCHROME1"
    largest = 2**BITS - 1
    pixels = largest - study.pixels if inverted else study.pixels
    low, high = (float(v) for v in np.percentile(pixels, [0.5, 99.8]))
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = study.photometric
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = BITS
    dataset.HighBit = BITS - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "US"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.WindowCenter = str(round((low + high) / 2))
    dataset.WindowWidth = str(max(round(high - low), 2))
    dataset.WindowCenterWidthExplanation = "STANDARD"
    dataset.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()


def _add_digital_x_ray(dataset: Dataset, study: PhantomStudy) -> None:
    """Add what the DX modules ask for beyond CR (PS3.3 C.8.11)."""
    dataset.PixelIntensityRelationship = "LOG"
    # -1: higher values mean less X-ray intensity (PS3.3 C.8.11.3.1.2), as where bone is bright.
    dataset.PixelIntensityRelationshipSign = 1 if study.photometric == "MONOCHROME1" else -1
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([item(Code(value="51185008", scheme="SCT", meaning="Chest"))])
    dataset.ViewCodeSequence = Sequence([_view()])
    dataset.PatientOrientationCodeSequence = Sequence(
        [item(Code(value="10904000", scheme="SCT", meaning="Orthostatic body position"))]
    )
    dataset.DetectorType = "DIRECT"
    dataset.DetectorConfiguration = "AREA"
    dataset.PositionerType = "NONE"
    dataset.AcquisitionContextSequence = Sequence([])


def _view() -> Dataset:
    view = item(Code(value="399348003", scheme="SCT", meaning="postero-anterior"))
    view.ViewModifierCodeSequence = Sequence([])
    return view
