"""Writes a phantom's volume as a CT or MR series, as a scanner would, of a patient who plainly does not exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.uid import UID, CTImageStorage, MRImageStorage

from dicom_nodes.objects.identity import derived_uid
from dicom_nodes.objects.phantom_file import phantom_meta
from dicom_nodes.objects.write import to_bytes

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

CT_INTERCEPT = -1024


@dataclass(frozen=True, kw_only=True)
class PhantomSeries:
    """One series to write."""

    volume: NDArray[np.int16]
    """(slices, rows, columns) from the feet up: HU for CT, arbitrary units from 0 for MR."""
    modality: Literal["CT", "MR"]
    positions_mm: tuple[float, ...]
    """Of each slice along the patient's axis, towards the head."""
    pixel_mm: float
    name: str
    """Identifies the phantom; the same name always gives the same UIDs."""
    number: int
    """Of the phantom among its siblings, from 1; becomes part of the patient's name."""
    taken_at: datetime
    tilt_degrees: float = 0.0
    """Of the gantry: the slices lean, and each one's corner moves with its height."""


def write_phantom_series(folder: Path, series: PhantomSeries) -> list[Path]:
    """Write one file per slice, named by a digest so that names say nothing of the order; return them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(len(series.volume)):
        dataset = slice_dataset(series, index)
        path = folder / f"{dataset.SOPInstanceUID.rsplit('.', 1)[-1][-12:]}.dcm"
        path.write_bytes(to_bytes(dataset))
        paths.append(path)
    return paths


def slice_dataset(series: PhantomSeries, index: int) -> Dataset:
    """Return one slice: CT (PS3.3 A.3) or MR (A.4) image storage."""
    sop_class = CTImageStorage if series.modality == "CT" else MRImageStorage
    uid = UID(derived_uid("phantom", series.name, series.modality, f"slice {index}"))
    dataset = FileDataset("", {}, file_meta=phantom_meta(sop_class, uid), preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid
    _add_patient_study_equipment(dataset, series)
    dataset.InstanceNumber = len(series.volume) - index
    dataset.AcquisitionNumber = 1
    _add_geometry(dataset, series, index)
    _add_pixels(dataset, series, index)
    _add_acquisition(dataset, series)
    return dataset


def _add_patient_study_equipment(dataset: Dataset, series: PhantomSeries) -> None:
    dataset.PatientName = f"Phantom^Head {series.number}"
    dataset.PatientID = f"PHANTOM-HEAD-{series.number:04d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientComments = "Procedural phantom. Not a patient."
    dataset.StudyInstanceUID = derived_uid("phantom", series.name, series.modality, "study")
    dataset.SeriesInstanceUID = derived_uid("phantom", series.name, series.modality, "series")
    dataset.FrameOfReferenceUID = derived_uid("phantom", series.name, series.modality, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    for keyword in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{keyword}Date", series.taken_at.strftime("%Y%m%d"))
        setattr(dataset, f"{keyword}Time", series.taken_at.strftime("%H%M%S"))
    dataset.StudyID = f"H{series.number}"
    dataset.AccessionNumber = f"PHANTOMH{series.number:04d}"
    dataset.StudyDescription = "Head phantom"
    dataset.SeriesDescription = "Head"
    dataset.ReferringPhysicianName = ""
    dataset.Modality = series.modality
    dataset.SeriesNumber = 2
    dataset.Manufacturer = "Procedural phantom"
    dataset.ManufacturerModelName = "Head phantom"
    dataset.SoftwareVersions = "1"
    dataset.DeviceSerialNumber = "0"
    dataset.InstitutionName = "No hospital"


def _add_geometry(dataset: Dataset, series: PhantomSeries, index: int) -> None:
    _, rows, columns = series.volume.shape
    lean = np.radians(series.tilt_degrees)
    # The couch moves along z; a leaning slice keeps that, so its corner moves by z alone, not along its normal.
    corner = (-columns * series.pixel_mm / 2, -rows * series.pixel_mm / 2, series.positions_mm[index] / np.cos(lean))
    dataset.ImagePositionPatient = [f"{value:.5f}" for value in corner]
    dataset.ImageOrientationPatient = [f"{value:.8f}" for value in (1, 0, 0, 0, np.cos(lean), np.sin(lean))]
    dataset.PixelSpacing = [f"{series.pixel_mm:.5f}"] * 2
    gaps = np.diff(series.positions_mm)
    dataset.SliceThickness = f"{float(np.median(gaps)) if len(gaps) else 1.0:.3f}"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "HEAD" if series.modality == "CT" else "BRAIN"
    dataset.PatientPosition = "HFS"


def _add_pixels(dataset: Dataset, series: PhantomSeries, index: int) -> None:
    plane = series.volume[index]
    ct = series.modality == "CT"
    stored = plane - CT_INTERCEPT if ct else plane
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    if ct:
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(CT_INTERCEPT), "1", "HU"
        dataset.WindowCenter, dataset.WindowWidth = "40", "80"
    else:
        high = float(np.percentile(series.volume, 99.5))
        dataset.WindowCenter, dataset.WindowWidth = f"{high / 2:.0f}", f"{max(high, 2):.0f}"
    dataset.PixelData = np.clip(stored, 0, 4095).astype("<u2").tobytes()


def _add_acquisition(dataset: Dataset, series: PhantomSeries) -> None:
    if series.modality == "CT":
        dataset.KVP = "120"
        dataset.GantryDetectorTilt = f"{series.tilt_degrees:g}"
        return
    dataset.ScanningSequence, dataset.SequenceVariant = "IR", "SK"
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "2D"
    dataset.EchoTime, dataset.RepetitionTime, dataset.InversionTime = "90", "9000", "2500"
    dataset.EchoTrainLength = 1
