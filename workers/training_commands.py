"""`pellucid train`, `pellucid evaluate`, `pellucid phantom` and `pellucid plant`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from service.cli import settings_of
from service.terminal import terminal
from workers.device import choose_device
from workers.evaluation.cases import find_cases, label_to_evaluate
from workers.evaluation.overlays import overlay_grid
from workers.evaluation.page import as_html
from workers.evaluation.planted import known_phantoms, planted_films, write_known
from workers.evaluation.report import as_json, as_table
from workers.evaluation.run import evaluate_model
from workers.models.package import load_package
from workers.phantom.files import write_samples
from workers.registry import load_explainers
from workers.training.run import run_training

if TYPE_CHECKING:
    from collections.abc import Callable


class Display:
    """Shows how a run goes, with the time left, on standard error."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._run = progress.add_task("training", total=None, visible=False)

    def stage(self, title: str, total: int) -> Callable[[int], None]:
        """Open a bar and return what moves it."""
        task = self._progress.add_task(title, total=total)
        return lambda amount: self._progress.advance(task, amount)

    def step(self, epoch: int, done: int, total: int) -> None:
        """Move the bar of the run."""
        self._progress.update(
            self._run, description=f"training, epoch {epoch}", completed=done, total=total, visible=True
        )

    def epoch(self, record: dict[str, float]) -> None:
        """Print an epoch's figures."""
        self._progress.console.print(
            f"epoch {record['epoch']:3.0f}  loss {record['loss']:.3f}  AUC {record['auc']:.4f} "
            f"(harder {record['harder_auc']:.4f})  accuracy {record['accuracy']:.3f} "
            f"(harder {record['harder_accuracy']:.3f})  in lungs {record['lung_energy']:.2f}  "
            f"pointing {record['pointing']:.2f}  inside {record['planted_energy']:.2f}  "
            f"{record['seconds']:.0f} s",
            highlight=False,
        )


@click.command()
@click.argument("settings", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--resume", is_flag=True, help="Go on from the last epoch that was finished.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N")
def train(settings: Path, resume: bool, device: str) -> None:
    """Train a model package as SETTINGS (a TOML file) says."""
    with _bars() as progress:
        display = Display(progress)
        trained = run_training(
            settings,
            resume=resume,
            device=choose_device(device),
            watcher=display,
            progress=display.stage,
        )
    click.echo(f"{trained.folder}: epoch {trained.epoch}")
    for name, value in trained.scores.as_dict().items():
        click.echo(f"  {name:<16} {value:.4f}")
    for point in trained.points:
        click.echo(
            f"  {point.name:<16} threshold {point.threshold:.4f}  sensitivity {point.sensitivity:.4f}  "
            f"specificity {point.specificity:.4f}"
        )


@click.command()
@click.option("--model", required=True, help="Name of a model package, or its folder.")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Folder or CSV.")
@click.option("--label", default="", help="Finding to measure, where the model has several.")
@click.option("--explainer", multiple=True, default=["grad-cam"], show_default=True, help="Compared with known places.")
@click.option("--json", "as_machine", is_flag=True, help="For machines.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Folder for an HTML page.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.pass_context
def evaluate(  # noqa: PLR0917 - click passes them by name
    ctx: click.Context,
    model: str,
    data: Path,
    label: str,
    explainer: tuple[str, ...],
    as_machine: bool,
    report: Path | None,
    device: str,
) -> None:
    """Measure a model on labelled images, as the service would read them.

    DATA is a folder with one sub-folder per class, or a CSV with the columns path and label and, where it is known
    where the lesions lie, box or mask; images are DICOM, PNG or JPEG.
    """
    classifier = load_package(_folder(ctx, model), choose_device(device))
    chosen = label_to_evaluate(classifier.card, label)
    cases = find_cases(data, finding=classifier.card.labels[chosen].name)
    with _bars() as progress:
        advance = Display(progress).stage("reading images", len(cases))
        found = evaluate_model(classifier, load_explainers(explainer, {}), cases, label=chosen, advance=advance)
    machine = json.dumps(as_json(classifier.card, found), indent=2)
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
        (report / "evaluation.html").write_text(as_html(classifier.card, found, data=data.name), encoding="utf-8")
        (report / "evaluation.json").write_text(machine + "\n", encoding="utf-8")
    if as_machine:
        click.echo(machine)
    else:
        terminal().print(as_table(classifier.card, found))


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--data", required=True, type=click.Path(exists=True, path_type=Path), help="Folder or CSV, as evaluate's."
)
@click.option("--label", default="", help="Finding to explain, where the models have several.")
@click.option("--explainer", default="grad-cam", show_default=True, help="Which explanation.")
@click.option(
    "--count", default=8, show_default=True, type=click.IntRange(1, 24), help="How many films with the finding."
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="PNG to write.")
@click.pass_context
def overlays(  # noqa: PLR0917 - click passes them by name
    ctx: click.Context, models: tuple[str, ...], data: Path, label: str, explainer: str, count: int, out: Path
) -> None:
    """Draw where each of MODELS (packages or their folders) looks on the same films, evenly taken from DATA."""
    classifiers = [load_package(_folder(ctx, model), choose_device("cpu")) for model in models]
    labels = [label_to_evaluate(classifier.card, label) for classifier in classifiers]
    sick = [case for case in find_cases(data, finding=classifiers[0].card.labels[labels[0]].name) if case.truth]
    chosen = sick[:: max(1, len(sick) // count)][:count]
    with _bars() as progress:
        advance = Display(progress).stage("explaining films", len(chosen))
        sheet = overlay_grid(
            list(zip(classifiers, labels, strict=True)), load_explainers([explainer], {})[0], chosen, advance=advance
        )
    sheet.save(out)
    click.echo(str(out))


def _folder(ctx: click.Context, model: str) -> Path:
    return Path(model) if (Path(model) / "model.toml").exists() else settings_of(ctx).models_directory / model


@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the files.")
@click.option("--count", default=4, show_default=True, type=click.IntRange(min=1), help="How many studies.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Same seed, same files.")
def phantom(out: Path, count: int, seed: int) -> None:
    """Write procedural chest phantoms as DICOM studies: DX and CR, with and without opacities."""
    for path in write_samples(out, count, seed):
        click.echo(str(path))


@click.command()
@click.option("--films", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of clear films.")
@click.option("--phantoms", is_flag=True, help="Phantoms instead of films.")
@click.option("--count", default=500, show_default=True, type=click.IntRange(min=1), help="Images with opacities.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Same seed, same files.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the files.")
def plant(films: Path | None, phantoms: bool, count: int, seed: int, out: Path) -> None:
    """Write images whose opacities' place is known, with masks and cases.csv for `pellucid evaluate`."""
    if (films is None) == (not phantoms):
        raise click.UsageError("give either --films FOLDER or --phantoms")
    images = known_phantoms(count, seed) if films is None else planted_films(films, count, seed)
    with _bars() as progress:
        table = write_known(images, out, Display(progress).stage("planting opacities", 2 * count))
    click.echo(str(table))


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
