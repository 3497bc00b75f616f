"""Sources and results that the tests of objects are about."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from service.types import Attribution, Code, Finding, ModelIdentity, OperatingPoint, Refusal, Result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from service.types import Image, OutboxObject


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
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
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
        return Result(
            job_id="job-1",
            created_at=dt.datetime(2026, 11, 23, 11, 5, 9, tzinfo=dt.UTC),
            pipeline="chest-xray-pneumonia",
            pipeline_version="1",
            software_version="0.1.0",
            model=_model(),
            findings=(_finding(probability),),
            attributions=(
                Attribution(
                    method="grad-cam",
                    title="Grad-CAM",
                    finding="Pneumonia",
                    map=values,
                    parameters={"layer": "stage4"},
                    seconds=0.1,
                ),
            ),
            supersedes=supersedes,
        )

    return make


@pytest.fixture
def refusal() -> Refusal:
    """A refusal."""
    return Refusal(
        job_id="job-2",
        created_at=dt.datetime(2026, 11, 23, 11, 5, 9, tzinfo=dt.UTC),
        pipeline="chest-xray-pneumonia",
        pipeline_version="1",
        software_version="0.1.0",
        model=_model(),
        reason="The image is a lateral view.",
        details=("View position: LL",),
    )


def bump(shape: tuple[int, ...], row: float = 0.3, column: float = 0.7) -> NDArray[np.float32]:
    """A Gaussian hill whose top lies at the given fractions of the height and the width."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    squares = ((rows + 0.5) / shape[0] - row) ** 2 + ((columns + 0.5) / shape[1] - column) ** 2
    return np.exp(-squares / 0.02).astype(np.float32)


def _model() -> ModelIdentity:
    return ModelIdentity(
        name="compact",
        title="Compact ResNet",
        version="1.0.0",
        sha256="ab" * 32,
        manufacturer="Pellucid",
        trained_on="Paediatric chest radiographs of one hospital",
        limits="Not validated on adults.",
    )


def _finding(probability: float) -> Finding:
    point = OperatingPoint(name="balanced", threshold=0.5, sensitivity=0.96, specificity=0.94)
    pneumonia = Code(value="233604007", scheme="SCT", meaning="Pneumonia")
    return Finding(label="Pneumonia", code=pneumonia, probability=probability, operating_point=point)
