"""The studies that are opened in viewers: phantoms, with everything that Pellucid writes about them."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydicom import dcmread
from scipy import ndimage

from dicom_nodes.objects.phantom_series import PhantomSeries, write_phantom_series
from dicom_nodes.objects.series import read_series
from dicom_nodes.objects.write import to_bytes
from service.concepts import Code
from service.results import Assessment, Attribution, Finding, Measure, ModelIdentity, OperatingPoint, Result, Verdict
from workers.phantom.files import write_samples
from workers.phantom.head import make_brain_mr, make_head_ct
from workers.registry import load_series_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

REPOSITORY = Path(__file__).parent.parent.parent
PELLUCID = [sys.executable, "-c", "from service.cli import main; main()"]
RADIOGRAPH_OUTPUTS = ("secondary-capture", "structured-report", "text-report", "presentation-state", "pdf-report")
SERIES_OUTPUTS = (*RADIOGRAPH_OUTPUTS, "segmentation", "parametric-map", "key-objects")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study as the archive holds it."""

    sources: tuple[Path, ...]
    """In geometric order."""
    objects: dict[str, Path]
    """What Pellucid wrote, by kind."""
    map: NDArray[np.float32] | None = None
    """Shape (slices, rows, columns): the explanation behind the objects, where we made it."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything."""
        return (*self.sources, *self.objects.values())

    @property
    def uid(self) -> str:
        """Study Instance UID."""
        return str(self.source().StudyInstanceUID)

    @property
    def modality(self) -> str:
        """Of the sources."""
        return str(self.source().Modality)

    def source(self, index: int = 0) -> Dataset:
        """Read a source."""
        return dcmread(self.sources[index])

    def object(self, kind: str) -> Dataset:
        """Read what Pellucid wrote."""
        return dcmread(self.objects[kind])


def explained_radiographs(folder: Path, names: Sequence[str]) -> dict[str, Study]:
    """Send sample films through the whole pipeline, with every output; return studies by the films' names."""
    films = {path.stem: path for path in write_samples(folder / "films", count=4, seed=7)}
    pipelines = folder / "pipelines"
    pipelines.mkdir()
    shipped = (REPOSITORY / "config/pipelines/chest-xray-pneumonia.toml").read_text(encoding="utf-8")
    changed, count = re.subn(r"(?m)^outputs = .*$", f"outputs = {json.dumps(RADIOGRAPH_OUTPUTS)}", shipped)
    assert count == 1
    (pipelines / "chest-xray-pneumonia.toml").write_text(changed, encoding="utf-8")
    out = folder / "objects"
    command = [*PELLUCID, "explain", *(str(films[name]) for name in names), "--out", str(out), "--json"]
    environment = {**os.environ, "PELLUCID__PIPELINES__DIRECTORY": json.dumps(str(pipelines))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        name: Study(
            sources=(films[name],),
            objects={kind: out / f"{index:04d}-{name}.{kind}.dcm" for kind in RADIOGRAPH_OUTPUTS},
        )
        for index, name in enumerate(names)
    }


def explained_head(folder: Path, modality: Literal["CT", "MR"]) -> Study:
    """Write a head and every object about it; the explanation is a blurred lesion, so its place is known."""
    shape = (24, 256, 256)
    ct = modality == "CT"
    phantom = make_head_ct(3, bleed=True, shape=shape) if ct else make_brain_mr(3, tumour=True, shape=shape)
    series = PhantomSeries(
        volume=phantom.volume,
        modality=modality,
        positions_mm=phantom.positions_mm,
        pixel_mm=phantom.pixel_mm,
        name=f"viewers-{modality}",
        number=1 if ct else 2,
        taken_at=dt.datetime(2026, 1, 5, 10),  # noqa: DTZ001 - DICOM's dates are local by definition
    )
    source = read_series(write_phantom_series(folder / "slices", series))
    blurred = ndimage.gaussian_filter(phantom.lesion.astype(np.float32), (1, 8, 8))
    attribution = (blurred / blurred.max()).astype(np.float32)
    result = _result(attribution, modality)
    objects = {}
    for kind, build in load_series_outputs(SERIES_OUTPUTS).items():
        objects[kind] = folder / f"{kind}.dcm"
        objects[kind].write_bytes(to_bytes(build(source.headers, source.series, result)))
    by_uid = {dcmread(path, stop_before_pixels=True).SOPInstanceUID: path for path in (folder / "slices").iterdir()}
    ordered = tuple(by_uid[header.SOPInstanceUID] for header in source.headers)
    return Study(sources=ordered, objects=objects, map=attribution)


LESIONS = {
    "CT": ("Intracranial haemorrhage", Code(value="1386000", scheme="SCT", meaning="Intracranial hemorrhage")),
    "MR": ("Brain tumour", Code(value="126952004", scheme="SCT", meaning="Neoplasm of brain")),
}


def _result(attribution: NDArray[np.float32], modality: str) -> Result:
    label, code = LESIONS[modality]
    point = OperatingPoint(name="balanced", threshold=0.5, sensitivity=0.9, specificity=0.9)
    measure = Measure(name="deletion-auc", title="Deletion AUC", value=0.31, baseline=0.52)
    finding = Finding(label=label, code=code, probability=0.87, operating_point=point, operating_points=(point,))
    explanation = Attribution(
        method="grad-cam",
        title="Grad-CAM",
        finding=label,
        map=attribution,
        parameters={},
        seconds=0.1,
        assessment=Assessment(verdict=Verdict.RELIABLE, reasons=(), measures=(measure,)),
    )
    return Result(
        job_id=f"viewers-{modality}",
        created_at=dt.datetime(2026, 1, 5, 10, 30, tzinfo=dt.UTC),
        pipeline=f"head-{modality.lower()}",
        pipeline_version="1",
        series_number=9000,
        software_version="0.1.0",
        model=ModelIdentity(
            name="phantom-head",
            title="Phantom head",
            version="1.0.0",
            sha256="ab" * 32,
            manufacturer="Pellucid",
            trained_on="Head phantoms",
            limits="Not validated on patients.",
        ),
        findings=(finding,),
        attributions=(explanation,),
    )


def send(files: Sequence[Path], port: int) -> None:
    """Send files to the archive with our own command."""
    command = [*PELLUCID, "send", *map(str, files), "--to", f"127.0.0.1:{port}", "--called", "PACS"]
    done = subprocess.run([*command, "--calling", "PELLUCID"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def read(content: bytes) -> Any:
    """Read a Part 10 file in memory."""
    return dcmread(io.BytesIO(content))
