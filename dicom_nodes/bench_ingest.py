"""`pellucid bench ingest`: our listener beside dcmtk's storescp and Orthanc, same client, same files, one run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_nodes.client import echo, read_file, send
from dicom_nodes.objects.identity import derived_uid
from dicom_nodes.requestor import Destination
from dicom_nodes.status import Verdict
from service.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

_CR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.1"
_AE = "BENCH"
_READY_WITHIN_S = 60.0
LOADS = ((512 << 10, 32), (15 << 20, 8))
"""Bytes of the pixel data of an instance, and how many are sent."""
ASSOCIATIONS = (1, 4)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one server did with one load."""

    server: str
    instance_bytes: int
    associations: int
    instances: int
    repeats: int
    seconds: float
    """Median over the repeats."""
    instances_per_s: float
    mb_per_s: float
    durable_instances_per_s: float
    """Counted until the disk has it all, which only Pellucid waits for before it answers."""


@dataclass(frozen=True, kw_only=True)
class _Spent:
    answered_s: float
    durable_s: float


@click.command()
@click.option("--seconds", default=20.0, show_default=True, help="Begin no further repeat after so long.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1), help="At most; the median counts.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def ingest(seconds: float, repeats: int, as_json: bool) -> None:
    """Measure how fast instances are received: ours with fsync, storescp and Orthanc as they come.

    storescp never calls fsync; Orthanc commits its index only. Before each turn the disk is at rest, so that nobody
    pays for what another left. A busy machine changes all figures: compare within one run.
    """
    with tempfile.TemporaryDirectory() as name:
        runs = measure(Path(name), seconds=seconds, repeats=repeats)
    if as_json:
        click.echo(json.dumps({"runs": [asdict(run) for run in runs]}, indent=2))
        return
    for run in runs:
        click.echo(
            f"{run.server:10} {run.instance_bytes / 1e6:6.1f} MB x {run.instances:3}  {run.associations} "
            f"association(s)  {run.instances_per_s:7.1f} instances/s  {run.mb_per_s:7.1f} MB/s  "
            f"{run.durable_instances_per_s:7.1f} durable/s  (median of {run.repeats})"
        )


def measure(folder: Path, *, seconds: float, repeats: int, loads: Sequence[tuple[int, int]] = LOADS) -> list[Run]:
    """Give every server that is installed every load; servers take turns, so that noise meets them alike."""
    servers = {name: start for name, start in _SERVERS.items() if name == "pellucid" or shutil.which(_PROGRAMS[name])}
    taken: dict[tuple[str, int, int, int], list[_Spent]] = {}
    with ExitStack() as stack:
        _say(f"starting {', '.join(servers)}")
        ports = {name: stack.enter_context(start(folder / name)) for name, start in servers.items()}
        begun = time.monotonic()
        for repeat in range(repeats):
            for size, count in loads:
                for associations in ASSOCIATIONS:
                    _say(f"round {repeat + 1}: {count} instances of {size >> 10} KB, {associations} association(s)")
                    # New UIDs each time: a server that knows an instance already has less to do.
                    files = make_files(folder / "files", size=size, count=count, seed=f"{size}-{associations}-{repeat}")
                    for name in _turns(list(ports), repeat):
                        spent = _send_all(name, files, ports[name], associations)
                        taken.setdefault((name, size, count, associations), []).append(spent)
                    shutil.rmtree(folder / "files")
            if time.monotonic() - begun > seconds:
                break
    return [_run(*load, spent) for load, spent in taken.items()]


def _turns(names: list[str], repeat: int) -> list[str]:
    """Let another one begin each time."""
    first = repeat % len(names)
    return names[first:] + names[:first]


def _say(text: str) -> None:
    """Progress goes to standard error: standard output is for the figures."""
    click.echo(text, err=True)


def make_files(folder: Path, *, size: int, count: int, seed: str) -> list[Path]:
    """Write CR instances of noise, which nothing can compress away."""
    folder.mkdir(parents=True)
    columns = 512
    rows = size // (2 * columns)
    noise = np.random.default_rng(7).integers(0, 4096, (rows, columns), dtype=np.uint16).tobytes()
    return [_write(folder / f"{index}.dcm", noise, rows, columns, f"{seed}-{index}") for index in range(count)]


def _write(path: Path, pixels: bytes, rows: int, columns: int, seed: str) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID = _CR_IMAGE_STORAGE
    dataset.SOPInstanceUID = derived_uid("bench", seed)
    dataset.Modality = "CR"
    dataset.PatientID = "BENCH"
    dataset.PatientName = "Bench"
    dataset.StudyInstanceUID = derived_uid("bench study", seed.rsplit("-", 1)[0])
    dataset.SeriesInstanceUID = derived_uid("bench series", seed.rsplit("-", 1)[0])
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def _send_all(server: str, paths: Sequence[Path], port: int, associations: int) -> _Spent:
    to = Destination(host="127.0.0.1", port=port, called=_AE, calling=_AE, timeout_s=120.0)
    shares = [[read_file(path) for path in paths[index::associations]] for index in range(associations)]
    os.sync()
    begun = time.perf_counter()
    with ThreadPoolExecutor(associations) as pool:
        outcomes = [outcome for share in pool.map(lambda files: list(send(files, to)), shares) for outcome in share]
    answered = time.perf_counter() - begun
    os.sync()
    durable = time.perf_counter() - begun
    lost = [outcome.reason for outcome in outcomes if outcome.verdict is not Verdict.DELIVERED]
    if lost:
        raise click.ClickException(f"{server}: {len(lost)} instances were not stored: {lost[0]}")
    return _Spent(answered_s=answered, durable_s=durable)


def _run(name: str, size: int, count: int, associations: int, spent: Sequence[_Spent]) -> Run:
    median = statistics.median(entry.answered_s for entry in spent)
    durable = statistics.median(entry.durable_s for entry in spent)
    return Run(
        server=name,
        instance_bytes=size,
        associations=associations,
        instances=count,
        repeats=len(spent),
        seconds=round(median, 3),
        instances_per_s=round(count / median, 2),
        mb_per_s=round(count * size / median / 1e6, 2),
        durable_instances_per_s=round(count / durable, 2),
    )


@contextmanager
def _pellucid(folder: Path) -> Iterator[int]:
    port = _free_port()
    environment = {
        **os.environ,
        "PELLUCID__STATE__DIRECTORY": str(folder),
        "PELLUCID__LISTENER__PORT": str(port),
        "PELLUCID__LISTENER__AE_TITLE": _AE,
        "PELLUCID__LISTENER__MINIMUM_FREE_MB": "0",
        "PELLUCID__PIPELINES__ENABLED": "[]",
    }
    with _running(
        [sys.executable, "-c", "from service.cli import main; main()", "listener"], folder, port, environment
    ):
        yield port


@contextmanager
def _storescp(folder: Path) -> Iterator[int]:
    port = _free_port()
    command = [_PROGRAMS["storescp"], "--fork", "-aet", _AE, "-pdu", "131072", "+B", "-od", str(folder), str(port)]
    with _running(command, folder, port, dict(os.environ)):
        yield port


@contextmanager
def _orthanc(folder: Path) -> Iterator[int]:
    port = _free_port()
    folder.mkdir(parents=True)
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "db"),
                "DicomPort": port,
                "HttpPort": _free_port(),
                "DicomAet": _AE,
                "DicomAlwaysAllowStore": True,
                "DicomAlwaysAllowEcho": True,
            }
        )
    )
    with _running([_PROGRAMS["orthanc"], str(configuration)], folder, port, dict(os.environ)):
        yield port


@contextmanager
def _running(command: list[str], folder: Path, port: int, environment: dict[str, str]) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_ready(command[0], port)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(program: str, port: int) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    pause = threading.Event()
    while True:
        try:
            echo("127.0.0.1", port, _AE, _AE, timeout_s=2.0)
        except DestinationError as error:
            if time.monotonic() > deadline:
                raise click.ClickException(f"{program} did not start: {error}") from None
            pause.wait(0.1)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_PROGRAMS = {"storescp": "storescp", "orthanc": "Orthanc"}
_SERVERS: dict[str, Callable[[Path], AbstractContextManager[int]]] = {
    "pellucid": _pellucid,
    "storescp": _storescp,
    "orthanc": _orthanc,
}
