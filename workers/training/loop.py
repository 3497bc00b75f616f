"""The run itself: epochs of steps, an average of the weights, a score after each epoch, and the best one kept."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from service.errors import SettingsError
from workers.device import autocast
from workers.models.graphs import build_graph
from workers.preprocess import resize, standardize
from workers.training.augment import augment
from workers.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from workers.training.corpus import epoch_batches, steps_per_epoch
from workers.training.objective import Activation, losses
from workers.training.scoring import examine

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from workers.training.checkpoint import Tensors
    from workers.training.corpus import Corpus, Example
    from workers.training.settings import TrainingSettings

WARM_UP = 0.15
"""Share of all steps in which the learning rate rises."""


class Teacher(Protocol):
    """A trained model that is asked about films as they are augmented."""

    def __call__(self, films: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 1) of films (batch, 1, rows, columns) in [0, 1]."""


class Watcher(Protocol):
    """Hears how a run goes."""

    def step(self, epoch: int, done: int, total: int) -> None:
        """`done` of `total` steps of the whole run are done."""

    def epoch(self, record: dict[str, float]) -> None:
        """An epoch ended with these figures."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished run."""

    network: nn.Module
    """The chosen epoch's average, in evaluation mode."""
    epoch: int
    history: list[dict[str, float]]


@dataclass(kw_only=True)
class Run:
    """A run under way; mutable, as training is."""

    settings: TrainingSettings
    device: torch.device
    network: nn.Module
    average: nn.Module
    teacher: Teacher | None
    optimizer: torch.optim.Optimizer
    steps: int
    """Of the whole run."""
    done: int = 0
    best: Tensors = field(default_factory=dict)
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def exhausted(self) -> bool:
        """True when patience has run out or all epochs are done."""
        wanted = self.settings.optimisation
        epoch = len(self.history)
        return epoch >= wanted.epochs or epoch - self.best_epoch >= wanted.patience


def train(
    settings: TrainingSettings,
    training: Corpus,
    validation: Corpus,
    *,
    checkpoint: Path,
    resume: bool,
    device: torch.device,
    watcher: Watcher,
    teacher: Teacher | None = None,
    start: nn.Module | None = None,
) -> Outcome:
    """Train to the end, from the start or from `checkpoint`; the result does not depend on which.

    `teacher` shows its probabilities of every film; the weights of `start` are the first ones.
    """
    torch.set_num_threads(settings.optimisation.threads)
    run = _start(settings, training, device, teacher)
    if start is not None:
        run.network.load_state_dict(start.state_dict())
        run.average.load_state_dict(start.state_dict())
    if resume and checkpoint.exists():
        _restore(run, load_checkpoint(checkpoint, settings=_digest(settings)))
    while not run.exhausted:
        _epoch(run, training, validation, watcher)
        save_checkpoint(checkpoint, _snapshot(run))
    run.average.load_state_dict(run.best)
    return Outcome(network=run.average.eval(), epoch=run.best_epoch, history=run.history)


def _start(settings: TrainingSettings, training: Corpus, device: torch.device, teacher: Teacher | None) -> Run:
    torch.manual_seed(settings.seed)
    wanted = settings.optimisation
    network = build_graph(settings.package.graph, labels=1).to(device)
    # Channels last is what bfloat16 convolutions on a CPU are written for.
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to its stubs
    for part in _parts(network, wanted.frozen):
        part.requires_grad_(requires_grad=False)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": wanted.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return Run(
        settings=settings,
        device=device,
        network=network,
        teacher=teacher,
        average=copy.deepcopy(network).eval().requires_grad_(requires_grad=False),
        optimizer=torch.optim.AdamW(groups, lr=wanted.learning_rate),
        steps=wanted.epochs * steps_per_epoch(training, settings.synthesis, size=wanted.batch),
    )


def _epoch(run: Run, training: Corpus, validation: Corpus, watcher: Watcher) -> None:
    settings, number = run.settings, len(run.history)
    started = time.monotonic()
    # Seeded by the epoch, so that an interrupted run sees what an uninterrupted one sees.
    torch.manual_seed(settings.seed * 100_003 + number)
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + number)
    batches = epoch_batches(
        training, settings.synthesis, size=settings.optimisation.batch, seed=(settings.seed, number)
    )
    sums: dict[str, float] = {"loss": 0.0, "entropy": 0.0, "outside": 0.0, "inside": 0.0, "covered": 0.0}
    steps = 0
    for example in batches:
        for name, value in _step(run, example, generator).items():
            sums[name] += value
        steps += 1
        run.done += 1
        watcher.step(number + 1, run.done, run.steps)
    side = _side(run, run.done - 1)
    scores = examine(
        run.average,
        settings.package.cam_layer,
        validation,
        device=run.device,
        seed=settings.seed,
        side=side,
        bfloat16=settings.optimisation.bfloat16,
    ).scores
    record = {name: value / steps for name, value in sums.items()} | scores.as_dict()
    record |= {"epoch": number + 1, "seconds": time.monotonic() - started}
    # Epochs compare on films of one size; what ships has seen the largest.
    record["side"] = side
    best = run.history[run.best_epoch - 1] if run.best else record
    if record["side"] > best["side"] or record["selection"] >= best["selection"]:
        run.best, run.best_epoch = _tensors(run.average), number + 1
    run.history.append(record)
    watcher.epoch(record)


def _step(run: Run, example: Example, generator: torch.Generator) -> dict[str, float]:
    wanted = run.settings.optimisation
    for group in run.optimizer.param_groups:
        group["lr"] = wanted.learning_rate * one_cycle(run.done / run.steps)
    batch = augment(example.batch, generator, wanted.augmentation).to(run.device)
    smooth = example.truth.to(run.device) * (1 - wanted.label_smoothing) + 0.5 * wanted.label_smoothing
    truth = _taught(run, batch.films, smooth)
    side = _side(run, run.done)
    films = standardize(resize(batch.films, side, side)).contiguous(memory_format=torch.channels_last)
    run.network.train()
    for part in _parts(run.network, wanted.frozen):
        part.eval()
    with Activation(run.network, run.settings.package.cam_layer) as activation:
        with autocast(run.device, enabled=wanted.bfloat16):
            logits = run.network(films)
        found = losses(
            logits.float(),
            activation.map(),
            target=truth,
            batch=batch,
            settings=run.settings.synthesis,
        )
    run.optimizer.zero_grad()
    found.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), 5.0)
    run.optimizer.step()
    _follow(run, wanted.average_decay)
    parts = {
        "loss": found.total.detach(),
        "entropy": found.entropy,
        "outside": found.outside,
        "inside": found.inside,
        "covered": found.covered,
    }
    return {name: float(value) for name, value in parts.items()}


def _parts(network: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    """Return the modules of these names.

    Raises:
        SettingsError: there is none of that name.
    """
    modules = dict(network.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown:
        first = ", ".join(name for name, _ in network.named_children())
        raise SettingsError(f"optimisation.frozen: the graph has no module {unknown[0]!r}; it begins with {first}")
    return [modules[name] for name in names]


def _taught(run: Run, films: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mix the teacher's probabilities of these films into the target."""
    if run.teacher is None:
        return target
    weight = run.settings.distillation.weight
    with torch.no_grad(), autocast(run.device, enabled=run.settings.optimisation.bfloat16):
        logits = run.teacher(films)
    return (1 - weight) * target + weight * torch.sigmoid(logits.float())


def _side(run: Run, done: int) -> int:
    """Return the side of the films after `done` steps."""
    sides = [(0.0, run.settings.package.input.rows), *run.settings.optimisation.sides]
    return [side for share, side in sides if done / run.steps >= share][-1]


def one_cycle(progress: float) -> float:
    """Return the share of the highest learning rate at `progress` in [0, 1] (Smith 2018, arXiv:1803.09820)."""
    if progress < WARM_UP:
        return 0.04 + 0.96 * progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) + 1e-4


def _follow(run: Run, decay: float) -> None:
    """Move the average towards the network; early steps count more, or it would remember the start."""
    share = 1 - min(decay, (run.done + 1) / (run.done + 10))
    with torch.no_grad():
        pairs = zip(run.average.state_dict().values(), run.network.state_dict().values(), strict=True)
        for mean, current in pairs:
            if mean.is_floating_point():
                mean.lerp_(current, share)
            else:
                mean.copy_(current)


def _tensors(network: nn.Module) -> Tensors:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _snapshot(run: Run) -> Checkpoint:
    return Checkpoint(
        settings=_digest(run.settings),
        epoch=len(run.history),
        network=_tensors(run.network),
        average=_tensors(run.average),
        optimizer=run.optimizer.state_dict(),
        best=run.best,
        best_epoch=run.best_epoch,
        history=run.history,
    )


def _restore(run: Run, saved: Checkpoint) -> None:
    run.network.load_state_dict(saved.network)
    run.average.load_state_dict(saved.average)
    run.optimizer.load_state_dict(saved.optimizer)
    run.best, run.best_epoch, run.history = saved.best, saved.best_epoch, saved.history
    run.done = saved.epoch * run.steps // run.settings.optimisation.epochs


def _digest(settings: TrainingSettings) -> str:
    learned = settings.model_dump_json(include={"seed", "start", "data", "optimisation", "synthesis", "distillation"})
    return hashlib.sha256(learned.encode()).hexdigest()
