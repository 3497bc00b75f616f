"""`pellucid train` and `pellucid evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from service.errors import PellucidError
from workers.device import choose_device
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
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as progress:
            display = Display(progress)
            trained = run_training(
                settings,
                resume=resume,
                device=choose_device(device),
                watcher=display,
                progress=display.stage,
            )
    except PellucidError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{trained.folder}: epoch {trained.epoch}")
    for name, value in trained.scores.as_dict().items():
        click.echo(f"  {name:<16} {value:.4f}")
    for point in trained.points:
        click.echo(
            f"  {point.name:<16} threshold {point.threshold:.4f}  sensitivity {point.sensitivity:.4f}  "
            f"specificity {point.specificity:.4f}"
        )
