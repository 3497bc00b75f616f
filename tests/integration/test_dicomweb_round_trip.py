"""Every object through a real Orthanc's DICOMweb: found by QIDO-RS, whole by WADO-RS, rendered as a picture."""

from __future__ import annotations

import email
import email.policy
import io
import json
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array
from readings import reading
from require import require_tool

from dicom_nodes.client import send_files
from dicom_nodes.objects.phantom_series import PhantomSeries, write_phantom_series
from dicom_nodes.objects.read import read_image
from dicom_nodes.objects.series import read_series
from dicom_nodes.objects.write import to_bytes
from dicom_nodes.status import Verdict
from workers.phantom.files import write_samples
from workers.phantom.head import make_head_ct
from workers.registry import load_outputs, load_series_outputs
from workers.sandbox import PACS_AE, OrthancPacs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from pydicom import Dataset

PLUGIN_FOLDERS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
FILM_OUTPUTS = (
    "secondary-capture",
    "secondary-capture-uncompressed",
    "structured-report",
    "structured-report-comprehensive",
    "structured-report-enhanced",
    "text-report",
    "text-report-enhanced",
    "presentation-state",
    "pdf-report",
)
SERIES_OUTPUTS = (
    "secondary-capture",
    "structured-report",
    "text-report",
    "presentation-state",
    "pdf-report",
    "segmentation",
    "parametric-map",
    "key-objects",
)
PICTURES = ("secondary-capture", "secondary-capture-uncompressed", "series secondary-capture")
TAKEN_AT = datetime(2026, 1, 5, 10)  # noqa: DTZ001 - DICOM's dates are local by definition


class Archive:
    """Orthanc's DICOMweb, asked as any client would."""

    def __init__(self, pacs: OrthancPacs) -> None:
        self.port = pacs.port
        self._root = f"http://127.0.0.1:{pacs.http_port}/dicom-web"

    def get(self, path: str, accept: str) -> tuple[str, bytes]:
        """Return the content type and the body."""
        asked = urllib.request.Request(f"{self._root}{path}", headers={"Accept": accept})  # noqa: S310 - loopback
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - loopback
            return answer.headers["Content-Type"], answer.read()

    def find(self, query: str) -> list[dict[str, Any]]:
        """Ask by QIDO-RS."""
        found = json.loads(self.get(query, "application/dicom+json")[1])
        assert isinstance(found, list)
        return found

    def retrieve(self, dataset: Dataset) -> Dataset:
        """Fetch an instance by WADO-RS, in the transfer syntax that it is stored in."""
        kind, body = self.get(address(dataset), 'multipart/related; type="application/dicom"; transfer-syntax=*')
        message = email.message_from_bytes(
            b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body, policy=email.policy.HTTP
        )
        (part,) = message.iter_parts()
        return dcmread(io.BytesIO(part.get_payload(decode=True)))


def address(dataset: Dataset) -> str:
    """Return where WADO-RS has an instance."""
    return f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"


def bump(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A hill above the middle."""
    axes = np.ogrid[tuple(slice(-1, 1, side * 1j) for side in shape)]
    return np.exp(-8 * sum((axis - 0.2) ** 2 for axis in axes)).astype(np.float32)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Every object about a film and about a series, with the sources, as written."""
    folder = tmp_path_factory.mktemp("objects")
    (path,) = write_samples(folder, count=1, seed=3, size=(128, 120))
    film = read_image(path)
    head = make_head_ct(3, bleed=True, shape=(8, 64, 64))
    files = write_phantom_series(
        folder / "slices",
        PhantomSeries(
            volume=head.volume,
            modality="CT",
            positions_mm=head.positions_mm,
            pixel_mm=head.pixel_mm,
            name="round-trip",
            number=1,
            taken_at=TAKEN_AT,
        ),
    )
    source = read_series(files)
    about_film, about_series = reading(bump(film.image.grey.shape)), reading(bump(head.volume.shape))
    built = {kind: build(film.header, film.image, about_film) for kind, build in load_outputs(FILM_OUTPUTS).items()}
    for kind, build in load_series_outputs(SERIES_OUTPUTS).items():
        built[f"series {kind}"] = build(source.headers, source.series, about_series)
    sources = {"film": dcmread(path), **{f"slice {index}": dcmread(file) for index, file in enumerate(files)}}
    return sources | {name: dcmread(io.BytesIO(to_bytes(dataset))) for name, dataset in built.items()}


@pytest.fixture(scope="module")
def archive(objects: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An Orthanc that holds them."""
    require_tool("Orthanc")
    plugin = next((path for folder in PLUGIN_FOLDERS for path in folder.glob("libOrthancDicomWeb.so*")), None)
    if plugin is None:
        pytest.skip("Orthanc's DICOMweb plug-in is not installed: apt-get install orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("orthanc")
    pacs = OrthancPacs(folder, extra={"Plugins": [str(plugin)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}})
    try:
        files = []
        for index, dataset in enumerate(objects.values()):
            files.append(folder / f"{index}.dcm")
            files[-1].write_bytes(to_bytes(dataset))
        outcomes = send_files(files, "127.0.0.1", pacs.port, called=PACS_AE, calling="PELLUCID")
        assert {outcome.verdict for outcome in outcomes} == {Verdict.DELIVERED}
        yield Archive(pacs)
    finally:
        pacs.stop()


def test_a_query_finds_every_object_in_the_study_of_its_source(archive: Archive, objects: dict[str, Dataset]) -> None:
    for source, prefix in ((objects["film"], ""), (objects["slice 0"], "series ")):
        found = archive.find(f"/studies/{source.StudyInstanceUID}/instances?includefield=00080016")
        classes = {entry["00080018"]["Value"][0]: entry["00080016"]["Value"][0] for entry in found}
        kinds = SERIES_OUTPUTS if prefix else FILM_OUTPUTS
        for kind in kinds:
            dataset = objects[prefix + kind]
            assert classes[dataset.SOPInstanceUID] == dataset.SOPClassUID, kind
        assert len(classes) == len(kinds) + sum(name.startswith("slice") for name in objects if prefix) + (not prefix)


def test_a_query_for_reports_finds_reports_alone(archive: Archive, objects: dict[str, Dataset]) -> None:
    found = archive.find(f"/studies/{objects['film'].StudyInstanceUID}/series?Modality=SR")
    uids = {entry["0020000E"]["Value"][0] for entry in found}
    assert uids == {objects[kind].SeriesInstanceUID for kind in FILM_OUTPUTS if "report" in kind and "pdf" not in kind}


@pytest.mark.parametrize("name", [*FILM_OUTPUTS, *(f"series {kind}" for kind in SERIES_OUTPUTS)])
def test_every_object_is_retrieved_as_it_was_sent(archive: Archive, objects: dict[str, Dataset], name: str) -> None:
    sent, returned = objects[name], archive.retrieve(objects[name])
    assert returned.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert returned == sent


@pytest.mark.parametrize("name", PICTURES)
def test_a_heatmap_is_rendered_as_the_picture_that_it_is(
    archive: Archive, objects: dict[str, Dataset], name: str
) -> None:
    dataset = objects[name]
    frames = int(dataset.get("NumberOfFrames", 1))
    path = f"{address(dataset)}/frames/1/rendered" if frames > 1 else f"{address(dataset)}/rendered"
    kind, body = archive.get(path, "image/png")
    assert kind == "image/png"
    rendered = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), dtype=float)
    pixels = pixel_array(dataset, index=0).astype(float)
    assert rendered.shape == pixels.shape
    # JPEG decoders differ by a few grey levels.
    assert np.abs(rendered - pixels).mean() < 2
    assert np.ptp(pixels) > 200
