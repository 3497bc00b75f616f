"""Sources and results that the tests of objects are about."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)
from readings import lateral, reading

from dicom_nodes.objects.read import read_image
from service.images import Series
from service.results import (
    Assessment,
    Attribution,
    Measure,
    Refusal,
    Result,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from service.images import Image
    from service.records import OutboxObject

    Stack = tuple[list[Dataset], Series]


@pytest.fixture
def source() -> Callable[..., FileDataset]:
    """Make a chest radiograph in memory; keyword arguments are attributes, None removes one."""

    def make(pixels: NDArray[Any] | None = None, **attributes: Any) -> FileDataset:
        grid = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) if pixels is None else pixels
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = ComputedRadiographyImageStorage
        dataset.SOPInstanceUID = generate_uid(prefix="2.25.", entropy_srcs=["instance"])
        dataset.StudyInstanceUID = generate_uid(prefix="2.25.", entropy_srcs=["study"])
        dataset.SeriesInstanceUID = generate_uid(prefix="2.25.", entropy_srcs=["series"])
        dataset.PatientName = "Doe^Jane"
        dataset.PatientID = "4711"
        dataset.PatientBirthDate = "19700102"
        dataset.PatientSex = "F"
        dataset.StudyDate = "20261122"
        dataset.StudyTime = "101500"
        dataset.StudyID = "S1"
        dataset.AccessionNumber = "A1"
        dataset.ReferringPhysicianName = "Who^Doctor"
        dataset.Modality = "CR"
        dataset.Manufacturer = "Acme"
        dataset.BodyPartExamined = "CHEST"
        dataset.PatientOrientation = ["L", "F"]
        dataset.InstanceNumber = 3
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        _describe(dataset, grid)
        for keyword, value in attributes.items():
            if value is None:
                if keyword in dataset:
                    del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        meta.MediaStorageSOPClassUID = UID(str(dataset.get("SOPClassUID", "1.2")))
        meta.MediaStorageSOPInstanceUID = UID(str(dataset.get("SOPInstanceUID", "1.2")))
        return dataset

    return make


def _describe(dataset: Dataset, grid: NDArray[Any]) -> None:
    dataset.Rows, dataset.Columns = grid.shape[:2]
    if grid.ndim == 3:
        dataset.SamplesPerPixel = 3
        dataset.PhotometricInterpretation = "RGB"
        dataset.PlanarConfiguration = 0
    bits = grid.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(grid.dtype.kind == "i")
    dataset.PixelData = grid.tobytes() + b"\0" * (grid.nbytes % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Dataset], Path]:
    """Write a data set to a file."""

    def save(dataset: Dataset) -> Path:
        path = tmp_path / "source.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return save


@pytest.fixture
def result() -> Callable[..., Result]:
    """Make a result for an image: one finding, explained by a smooth bump."""

    def make(
        image: Image,
        *,
        probability: float = 0.9,
        attribution: NDArray[np.float32] | None = None,
        supersedes: tuple[OutboxObject, ...] = (),
    ) -> Result:
        values = bump(image.grey.shape) if attribution is None else attribution
        return dataclasses.replace(reading(values, probability=probability), supersedes=supersedes)

    return make


@pytest.fixture
def refusal() -> Refusal:
    """A refusal."""
    return lateral()


def bump(shape: tuple[int, ...], row: float = 0.3, column: float = 0.7) -> NDArray[np.float32]:
    """A Gaussian hill whose top lies at the given fractions of the height and the width."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    squares = ((rows + 0.5) / shape[0] - row) ** 2 + ((columns + 0.5) / shape[1] - column) ** 2
    return np.exp(-squares / 0.02).astype(np.float32)


@pytest.fixture
def several() -> Callable[..., Result]:
    """Make a result whose finding has three explanations: use with caution, not shown, reliable."""

    def make(shape: tuple[int, ...], *, probability: float = 0.9, slices: int = 0) -> Result:
        weights = np.exp(-((np.arange(slices) - slices // 2) ** 2) / 2.0).astype(np.float32)

        def hill(row: float, column: float) -> NDArray[np.float32]:
            plane = bump(shape, row, column)
            return weights[:, None, None] * plane if slices else plane

        deletion = Measure(name="deletion-auc", title="Deletion AUC", value=0.31, baseline=0.52)
        stability = Measure(name="stability-rank-correlation", title="Stability (rank correlation)", value=0.91)
        made = (
            ("grad-cam", "Grad-CAM", hill(0.3, 0.7), Verdict.CAUTION, ("The map moves when the film is shifted",)),
            ("lime", "LIME", hill(0.7, 0.3), Verdict.NOT_SHOWN, ("Deleting its parts changes nothing",)),
            ("rise", "RISE", hill(0.35, 0.65), Verdict.RELIABLE, ()),
        )
        attributions = tuple(
            Attribution(
                method=method,
                title=title,
                finding="Pneumonia",
                map=values,
                parameters={},
                seconds=0.1,
                assessment=Assessment(verdict=verdict, reasons=reasons, measures=(deletion, stability)),
            )
            for method, title, values, verdict, reasons in made
        )
        return dataclasses.replace(
            reading(bump(shape), probability=probability),
            job_id="job-3",
            attributions=attributions,
            contradictions=("Grad-CAM and LIME mark different parts",),
            unavailable=("SHAP: the time was over",),
        )

    return make


@pytest.fixture
def stack(source: Callable[..., FileDataset], tmp_path: Path) -> Callable[..., Stack]:
    """Make a CT series of small slices; `tilt_mm` shifts each slice against the one before, as a tilted gantry does."""

    def make(
        slices: int = 7,
        *,
        gaps: tuple[float, ...] = (2.0,),
        tilt_mm: float = 0.0,
        orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
        pixels: NDArray[Any] | None = None,
        **attributes: Any,
    ) -> Stack:
        plane = np.arange(64 * 48, dtype=np.int16).reshape(64, 48) % 800 if pixels is None else pixels
        normal = np.cross(orientation[:3], orientation[3:])
        across = np.array(orientation[3:])
        positions = np.concatenate([[0.0], np.cumsum([gaps[index % len(gaps)] for index in range(slices - 1)])])
        headers, images = [], []
        for index, position in enumerate(positions):
            corner = position * normal + index * tilt_mm * across + np.array([-20.0, -30.0, 100.0])
            values: dict[str, Any] = {
                "SOPClassUID": CTImageStorage,
                "Modality": "CT",
                "BodyPartExamined": "HEAD",
                "SOPInstanceUID": generate_uid(prefix="2.25.", entropy_srcs=["slice", str(index)]),
                "FrameOfReferenceUID": "2.25.77",
                "PositionReferenceIndicator": "",
                "ImageOrientationPatient": [f"{value:g}" for value in orientation],
                "ImagePositionPatient": [f"{value:.6f}" for value in corner],
                "PixelSpacing": ["0.5", "0.5"],
                "SliceThickness": "2",
                "RescaleIntercept": "-1024",
                "RescaleSlope": "1",
                "WindowCenter": "-600",
                "WindowWidth": "800",
                "InstanceNumber": slices - index,
                "PatientOrientation": None,
                **attributes,
            }
            path = tmp_path / f"slice{index}.dcm"
            source(plane, **values).save_as(path, enforce_file_format=True)
            read = read_image(path)
            headers.append(read.header)
            images.append(read.image)
        return headers, Series(slices=tuple(images), positions_mm=tuple(float(value) for value in positions))

    return make
