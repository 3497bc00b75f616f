"""From a settings file to a model package on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workers.models.package import load_package
from workers.preprocess import resize, standardize
from workers.training.calibrate import calibrate, choose_points
from workers.training.loop import train
from workers.training.prepare import prepare
from workers.training.scoring import Scores, examine
from workers.training.settings import load_settings
from workers.training.write import halve, write_package

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from service.results import OperatingPoint
    from workers.training.loop import Outcome, Teacher, Watcher


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that ended in a package."""

    folder: Path
    epoch: int
    scores: Scores
    points: tuple[OperatingPoint, ...]


def run_training(
    path: Path,
    *,
    resume: bool,
    device: torch.device,
    watcher: Watcher,
    progress: Callable[[str, int], Callable[[int], None]],
) -> Trained:
    """Train as the settings file at `path` says and write the package.

    Raises:
        SettingsError: the settings are wrong, the films are missing, or a checkpoint belongs to other settings.
    """
    settings = load_settings(path)
    base = path.resolve().parent
    runs = base / settings.runs / settings.package.name
    training, validation = prepare(
        settings,
        data=base / settings.data.folder,
        clear=base / settings.data.clear if settings.data.clear else None,
        runs=runs,
        progress=progress,
    )
    outcome = train(
        settings,
        training,
        validation,
        checkpoint=runs / "checkpoint.pt",
        resume=resume,
        device=device,
        watcher=watcher,
        teacher=_teacher(base / settings.distillation.teacher, device) if settings.distillation.teacher else None,
        start=load_package(base / settings.start, device).network if settings.start else None,
    )
    _round_to_half(outcome)
    found = examine(
        outcome.network,
        settings.package.cam_layer,
        validation,
        device=device,
        seed=settings.seed,
        side=settings.package.input.rows,
    )
    # Both views of each validation film: as they are they are easier than another day's.
    logits = np.concatenate([found.answers.plain, found.answers.harder])
    truth = np.concatenate([validation.films.labels, validation.films.labels])
    calibration = calibrate(logits, truth)
    points = choose_points(truth, calibration.probability(logits))
    folder = base / settings.output
    write_package(
        folder,
        settings.package,
        outcome.network,
        calibration=calibration,
        points=points,
        history=outcome.history,
        epoch=outcome.epoch,
    )
    return Trained(folder=folder, epoch=outcome.epoch, scores=found.scores, points=points)


def _teacher(package: Path, device: torch.device) -> Teacher:
    classifier = load_package(package, device)
    expected = classifier.card.input

    def ask(films: torch.Tensor) -> torch.Tensor:
        return classifier.logits(standardize(resize(films, expected.rows, expected.columns)))

    return ask


def _round_to_half(outcome: Outcome) -> None:
    """Calibrate what ships: the weights as half precision stores them."""
    state = outcome.network.state_dict()
    outcome.network.load_state_dict({name: halve(tensor).to(tensor.dtype) for name, tensor in state.items()})
