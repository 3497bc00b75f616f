"""`pellucid bench`: figures anyone can print again. A speed is a ratio or an overhead, never a promise."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from dicom_nodes.bench_ingest import ingest
from dicom_nodes.client import send_files
from service.pipelines import load_pipelines
from workers.bench_explainers import explainers
from workers.bench_inference import inference
from workers.bench_localisation import localisation, thresholds
from workers.bench_scale import scale
from workers.phantom.files import write_samples
from workers.pipeline import Analyst
from workers.sandbox import PACS_AE, Sandbox, any_pacs

_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@click.group()
def bench() -> None:
    """Measure Pellucid on this machine."""


bench.add_command(ingest)
bench.add_command(scale)
bench.add_command(localisation)
bench.add_command(thresholds)
bench.add_command(inference)
bench.add_command(explainers)


@bench.command()
@click.option("--studies", default=20, show_default=True, type=click.IntRange(min=2))
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def turnaround(studies: int, as_json: bool) -> None:
    """Time from an association's end to the last object in the PACS, less the analysis itself.

    Single-image studies, one after the other, on the embedded default. The analysis (read, classify, explain,
    build) of the same files is timed in this process, and subtracted study by study.
    """
    with tempfile.TemporaryDirectory(prefix="pellucid-bench-") as temporary:
        folder = Path(temporary)
        files = write_samples(folder / "samples", count=studies, seed=11)
        pacs = any_pacs(folder / "pacs")
        sandbox = Sandbox(folder / "service", pacs_port=pacs.port)
        try:
            sandbox.start()
            sandbox.wait_ready()
            totals = [_one_study(sandbox, file, number) for number, file in enumerate(files, start=1)]
        finally:
            sandbox.stop()
            pacs.stop()
        in_process = _in_process(sandbox, files)
        overheads = [total - analysis for total, analysis in zip(totals, in_process, strict=True)]
    figures = {
        "studies": studies,
        "overhead_p50_s": round(statistics.median(overheads), 3),
        "overhead_p95_s": round(statistics.quantiles(overheads, n=20, method="inclusive")[-1], 3),
        "turnaround_p50_s": round(statistics.median(totals), 3),
        "analysis_p50_s": round(statistics.median(in_process), 3),
        "pacs": pacs.name,
    }
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        click.echo(f"{name:20} {value}")


def _one_study(sandbox: Sandbox, file: Path, number: int) -> float:
    """Return seconds from the association's end to the last delivery of one study."""
    send_files([file], "127.0.0.1", sandbox.port, called=sandbox.settings.listener.ae_title, calling=PACS_AE)
    ended = time.time()
    newest = sandbox.wait_settled(jobs=number)[0]
    if newest.delivered_at is None:
        raise click.ClickException(f"job {newest.job.id} is {newest.job.state}: {newest.job.reason}")
    return newest.delivered_at.timestamp() - ended


def _in_process(sandbox: Sandbox, files: list[Path]) -> list[float]:
    (entry,) = load_pipelines(sandbox.settings)
    analyst = Analyst(entry.pipeline, sandbox.settings)
    seconds = []
    for file in [files[0], *files]:
        begun = time.perf_counter()
        analyst.analyse(file, job_id="bench", created_at=_MOMENT)
        seconds.append(time.perf_counter() - begun)
    return seconds[1:]
