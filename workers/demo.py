"""`pellucid demo`: the main job on one machine: a PACS, the service, studies in, explanations back."""

from __future__ import annotations

import io
import shutil
import signal
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydicom import dcmread
from rich.table import Table

from dicom_nodes.client import send_files
from dicom_nodes.objects.captions import percent
from dicom_nodes.objects.files import dicom_files
from dicom_nodes.objects.preview import preview_png
from dicom_nodes.objects.summary import Summary, summarize
from dicom_nodes.status import Verdict
from service.records import JobState
from service.terminal import terminal
from workers.phantom.files import write_samples
from workers.sandbox import PACS_AE, Sandbox, any_pacs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from service.ledger.report import JobReport
    from workers.sandbox import Pacs

SAMPLES = 4


@click.command()
@click.option("--once", is_flag=True, help="End after the table; exit code 0 only if every object came back.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for what the PACS received, as .dcm and .png.",
)
@click.option("--study", type=click.Path(exists=True, path_type=Path), help="Your own file or folder.")
def demo(once: bool, out: Path, study: Path | None) -> None:
    """Send studies through the whole service on this machine and show what the PACS got back."""
    console = terminal()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pellucid-demo-") as temporary:
        folder = Path(temporary)
        files = dicom_files([study]) if study else write_samples(folder / "samples", count=SAMPLES, seed=7)
        if not files:
            raise click.ClickException(f"{study} holds no DICOM file")
        pacs = any_pacs(folder / "pacs")
        sandbox = Sandbox(folder / "service", pacs_port=pacs.port)
        try:
            complete = _run(console, sandbox, pacs, files, out, sample=study is None)
            if not once:
                _stay(console, sandbox, pacs)
        finally:
            sandbox.stop()
            shutil.copy(folder / "service" / "pellucid.log", out / "pellucid.log")
            pacs.stop()
    if not complete:
        raise click.ClickException(f"not every expected object came back; see {out / 'pellucid.log'}")


@dataclass(frozen=True, kw_only=True)
class _Row:
    report: JobReport
    summary: Summary | None
    returned: int


def _run(console: Console, sandbox: Sandbox, pacs: Pacs, files: Sequence[Path], out: Path, *, sample: bool) -> bool:
    with console.status(f"starting the service; the PACS is {pacs.name}") as status:
        sandbox.start()
        sandbox.wait_ready(progress=status.update)
        status.update(f"sending {len(files)} instances to the PACS and to Pellucid")
        _send(files, pacs.port, called=PACS_AE)
        _send(files, sandbox.port, called=sandbox.settings.listener.ae_title)
        reports = sandbox.wait_settled(
            jobs=len(files) if sample else 1,
            timeout_s=300.0,
            progress=lambda found: status.update(_progress(found, len(files))),
        )
    rows = [_collect(report, sandbox, pacs, out) for report in reports]
    _print(console, rows)
    console.print(f"What the PACS received: {out} (.dcm) with pictures (.png).")
    console.print("Research use; not for primary diagnosis.")
    accepted = {JobState.DONE} if sample else {JobState.DONE, JobState.REFUSED}
    return all(row.report.job.state in accepted and row.returned == row.report.objects for row in rows)


def _send(files: Sequence[Path], port: int, *, called: str) -> None:
    outcomes = send_files(files, "127.0.0.1", port, called=called, calling=PACS_AE)
    refused = [outcome for outcome in outcomes if outcome.verdict is not Verdict.DELIVERED]
    if refused:
        raise click.ClickException(f"{called} refused {len(refused)} instances; first: {refused[0].reason}")


def _progress(reports: Sequence[JobReport], expected: int) -> str:
    analysed = sum(report.job.state not in (JobState.QUEUED, JobState.RUNNING) for report in reports)
    delivered = sum(report.delivered for report in reports)
    return f"{len(reports)} of {expected} jobs made, {analysed} analysed, {delivered} objects delivered"


def _collect(report: JobReport, sandbox: Sandbox, pacs: Pacs, out: Path) -> _Row:
    """Fetch from the PACS what a job sent, and leave it in `out`."""
    summary, returned = None, 0
    for entry in sandbox.reports.objects_of(report.job.id):
        content = pacs.fetch(entry.sop_instance_uid)
        if content is None:
            continue
        returned += 1
        path = out / f"{report.job.id[:12]}.{entry.kind}.dcm"
        path.write_bytes(content)
        dataset = dcmread(io.BytesIO(content))
        picture = preview_png(dataset)
        if picture:
            path.with_suffix(".png").write_bytes(picture)
        summary = summarize(dataset) or summary
    return _Row(report=report, summary=summary, returned=returned)


def _print(console: Console, rows: Sequence[_Row]) -> None:
    table = Table("study", "state", "finding", "probability", "method", "objects in PACS", "seconds", "reason")
    for row in rows:
        job = row.report.job
        ended = row.report.delivered_at or job.updated_at
        table.add_row(
            f"…{job.study_instance_uid[-8:]}",
            str(job.state),
            row.summary.finding if row.summary else "",
            percent(row.summary.probability) if row.summary else "",
            row.summary.method if row.summary else "",
            f"{row.returned}/{row.report.objects}",
            f"{(ended - job.created_at).total_seconds():.2f}",
            job.reason or row.report.delivery_reason,
        )
    console.print(table)


def _stay(console: Console, sandbox: Sandbox, pacs: Pacs) -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    aet = sandbox.settings.listener.ae_title
    console.print(f"\nPellucid listens as {aet} on 127.0.0.1:{sandbox.port}; results go to {PACS_AE} on {pacs.port}.")
    console.print(f"Send your own: pellucid send FILE --to 127.0.0.1:{sandbox.port} --called {aet} --calling {PACS_AE}")
    if hasattr(pacs, "http_port"):
        console.print(f"Orthanc's pages: http://127.0.0.1:{pacs.http_port}/app/explorer.html")
    console.print("Ctrl-C ends it.")
    stop.wait()
