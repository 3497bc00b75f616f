"""`pellucid worker` and `pellucid explain`."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dicom_nodes.objects.attributes import text
from dicom_nodes.objects.captions import percent
from dicom_nodes.objects.files import dicom_files
from dicom_nodes.objects.preview import preview_png
from dicom_nodes.objects.read import read_header
from service.cli import UsageError, settings_of
from service.errors import PellucidError
from service.observe import configure_logging
from service.pipelines import load_pipelines
from service.terminal import terminal
from workers.app import run_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from service.pipelines import Pipeline
    from workers.pipeline import Analysis, Analyst

from pathlib import Path


@click.command()
@click.pass_context
def worker(ctx: click.Context) -> None:
    """Analyse what is in the queue, until SIGTERM."""
    settings = settings_of(ctx)
    configure_logging("worker", form=settings.log.format)
    run_worker(settings)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for results.")
@click.option("--pipeline", default="", help="Name of an enabled pipeline; default: the first.")
@click.option("--methods", default="", help="Names with commas between, or all; default: the pipeline's own.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def explain(
    ctx: click.Context, paths: tuple[Path, ...], *, out: Path, pipeline: str, methods: str, as_json: bool
) -> None:
    """Explain files, folders or a DICOMDIR without any network.

    Leaves DICOM objects, pictures and one page to look at, index.html, in --out.
    """
    # torch is heavy: a wrong option must be told before it is loaded.
    settings = settings_of(ctx)
    entries = load_pipelines(settings)
    chosen = [entry.pipeline for entry in entries if not pipeline or entry.pipeline.name == pipeline]
    if not chosen:
        names = ", ".join(entry.pipeline.name for entry in entries)
        raise UsageError(f"pipeline '{pipeline}' is not enabled; enabled: {names}")
    from workers.pipeline import Analyst  # noqa: PLC0415

    now = settings.worker.local(datetime.now(UTC).replace(microsecond=0))
    rows = explain_files(Analyst(_with_methods(chosen[0], methods), settings), dicom_files(paths), out, now=now)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print(rows, out)
    if not rows or any(row.reason for row in rows):
        ctx.exit(1)


def _with_methods(pipeline: Pipeline, methods: str) -> Pipeline:
    """Return the pipeline with other methods; its own default stays the first when all are wanted."""
    if not methods:
        return pipeline
    known = sorted(entry.name for entry in entry_points(group="pellucid.explainers"))
    names = [*pipeline.explainers, *known] if methods == "all" else [name.strip() for name in methods.split(",")]
    explainers = tuple(dict.fromkeys(names))
    own = {name: values for name, values in pipeline.parameters.items() if name in explainers}
    return pipeline.model_copy(update={"explainers": explainers, "parameters": own})


@dataclass(frozen=True, kw_only=True)
class ExplainedFile:
    """What became of one file."""

    file: str
    finding: str = ""
    probability: float | None = None
    positive: bool | None = None
    methods: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    reason: str = ""
    """Why it was not analysed; empty when it was."""


def explain_files(analyst: Analyst, files: Sequence[Path], out: Path, *, now: datetime) -> list[ExplainedFile]:
    """Analyse files one by one, or study by study where the model reads series; a refused one stops no other."""
    from workers.explain_page import Film, write_page  # noqa: PLC0415 - torch comes with it

    out.mkdir(parents=True, exist_ok=True)
    rows: list[ExplainedFile] = []
    refused: list[tuple[str, str]] = []

    def refuse(file: Path, error: PellucidError) -> None:
        rows.append(ExplainedFile(file=_shown(file), reason=str(error)))
        refused.append((Path(_shown(file)).name, str(error)))

    def films() -> Iterator[Film]:
        """Analyse while the page is written: a folder of films would not fit into memory."""
        inputs = _studies(analyst, files, refuse) if analyst.reads_series else _images(analyst, files)
        for one in track(inputs, description="explaining", console=Console(stderr=True)):
            try:
                analysis = one.analyse(job_id=f"explain-{os.getpid()}-{one.stem}"[:64], created_at=now)
            except PellucidError as error:
                refuse(one.file, error)
                continue
            rows.append(_write_objects(analysis, one.file, out, one.stem))
            yield Film(name=Path(_shown(one.file)).name, stem=one.stem, analysis=analysis)

    write_page(films(), refused, out)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Input:
    """What is analysed at once: a file, or the files of a study."""

    file: Path
    """Or the folder of the study's first file."""
    stem: str
    analyse: Callable[..., Analysis]


def _images(analyst: Analyst, files: Sequence[Path]) -> list[_Input]:
    return [
        _Input(file=file, stem=_stem(number, file), analyse=partial(analyst.analyse, file))
        for number, file in enumerate(files)
    ]


def _studies(analyst: Analyst, files: Sequence[Path], refuse: Callable[[Path, PellucidError], None]) -> list[_Input]:
    studies: dict[str, list[Path]] = {}
    for file in files:
        try:
            header, _ = read_header(file)
        except PellucidError as error:
            refuse(file, error)
        else:
            studies.setdefault(text(header, "StudyInstanceUID"), []).append(file)
    return [
        _Input(file=paths[0].parent, stem=f"{number:04d}-series", analyse=partial(analyst.analyse_series, paths))
        for number, paths in enumerate(studies.values())
    ]


def _stem(number: int, file: Path) -> str:
    """Return what the names of a file's results begin with, whatever its own name is."""
    return f"{number:04d}-{re.sub(r'[^A-Za-z0-9._-]', '_', file.stem)[:80]}"


def _shown(file: Path) -> str:
    """Return a path that can be printed: names of files need not be text."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", os.fsencode(file).decode("utf-8", "replace"))


def _write_objects(analysis: Analysis, file: Path, out: Path, stem: str) -> ExplainedFile:
    written = []
    for entry in analysis.objects:
        path = out / f"{stem}.{entry.kind}.dcm"
        path.write_bytes(entry.data)
        written.append(str(path))
        picture = preview_png(entry.dataset)
        if picture:
            path.with_suffix(".png").write_bytes(picture)
            written.append(str(path.with_suffix(".png")))
    finding = max(analysis.result.findings, key=lambda entry: entry.probability)
    return ExplainedFile(
        file=_shown(file),
        finding=finding.label,
        probability=round(finding.probability, 4),
        positive=finding.positive,
        methods=tuple(attribution.title for attribution in analysis.result.attributions),
        objects=tuple(written),
    )


def _print(rows: Sequence[ExplainedFile], out: Path) -> None:
    table = Table("file", "finding", "probability", "operating point", "method", "not analysed because")
    for row in rows:
        table.add_row(
            Path(row.file).name,
            row.finding,
            "" if row.probability is None else percent(row.probability),
            {None: "", True: "at or above", False: "below"}[row.positive],
            ", ".join(row.methods),
            row.reason,
        )
    console = terminal()
    console.print(table)
    console.print(f"Objects, pictures and the page index.html: {out}. Research use; not for primary diagnosis.")
