"""`pellucid bench inference`: images per second of a model by runtime and precision, beside eager float32."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from service.cli import UsageError, settings_of
from service.errors import ModelError
from service.pipelines import load_pipelines
from service.validation import nearest
from workers.device import choose_device
from workers.models.export import onnx_of
from workers.models.folding import fast_dtype, fold_batch_norm, inference_copy
from workers.models.package import load_package, probes
from workers.models.runtimes import OnnxRuntime, TorchRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workers.models.package import PackagedClassifier
    from workers.models.runtimes import Runtime


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One runtime's speed and how far its probabilities are from eager float32's."""

    runtime: str
    precision: str
    provider: str
    batch: int
    images_per_second: float
    speedup: float
    """Over eager float32 of the same batch size in the same run."""
    probability_difference: float
    """Largest, on the same inputs."""
    used: bool = False
    """Whether `Classifier.logits` uses this one here."""


@click.command()
@click.option("--model", "name", default="", help="Name of a package; default: that of the first enabled pipeline.")
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=click.IntRange(1, 256),
    default=(1, 8),
    show_default=True,
    help="Images in one pass; repeatable.",
)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1), help="Timed rounds of each.")
@click.option("--threads", default=0, type=click.IntRange(min=0), help="Of the processor; 0: as torch chooses.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def inference(  # noqa: PLR0917 - click passes options by name
    ctx: click.Context, name: str, batches: tuple[int, ...], rounds: int, threads: int, as_json: bool
) -> None:
    """Measure a model's forward pass by runtime and precision, beside eager float32 torch in the same run.

    Rounds of all runtimes take turns, so a busy neighbour slows all alike; the figure is the median round.
    """
    settings = settings_of(ctx)
    known = [path.parent.name for path in sorted(settings.models_directory.glob("*/model.toml"))]
    name = name or load_pipelines(settings)[0].pipeline.model
    if name not in known:
        raise UsageError(f"there is no model '{name}'{nearest(name, known)}")
    if threads:
        torch.set_num_threads(threads)
    device = choose_device(settings.worker.device)
    classifier = load_package(settings.models_directory / name, device)
    figures = [figure for batch in batches for figure in measure(classifier, batch, rounds)]
    result = {
        "model": classifier.card.name,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "figures": [asdict(figure) for figure in figures],
    }
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{classifier.card.name} on {device}, {torch.get_num_threads()} threads; images/s, beside eager float32")
    for f in figures:
        used = "  <- used" if f.used else ""
        what = f"{f.runtime} {f.precision} ({f.provider})"
        click.echo(
            f"batch {f.batch:3}  {what:44} {f.images_per_second:8.1f}  x{f.speedup:4.2f}  "
            f"probability +-{f.probability_difference:.1e}{used}"
        )


def measure(classifier: PackagedClassifier, batch: int, rounds: int) -> list[Figure]:
    """Time every runtime of a model on the same inputs, in turns; the first figure is the reference."""
    runtimes = [runtime for runtime in _runtimes(classifier) if _works(runtime, classifier)]
    shape = [classifier.card.input.rows, classifier.card.input.columns]
    if classifier.card.input.slices:
        shape.insert(0, classifier.card.input.slices)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, classifier.card.input.channels, *shape, generator=generator).to(classifier.device)
    seconds: list[list[float]] = [[] for _ in runtimes]
    answers = [classifier.probabilities(runtime(inputs)) for runtime in runtimes]
    for _ in range(rounds):
        for taken, runtime in zip(seconds, runtimes, strict=True):
            taken.append(_timed(runtime, inputs))
    medians = [statistics.median(taken) for taken in seconds]
    return [
        Figure(
            runtime=runtime.name,
            precision=runtime.precision,
            provider=runtime.provider,
            batch=batch,
            images_per_second=round(batch / median, 2),
            speedup=round(medians[0] / median, 3),
            probability_difference=float(np.abs(answer - answers[0]).max()),
            used=(runtime.name, runtime.precision) == (classifier.runtime.name, classifier.runtime.precision),
        )
        for runtime, median, answer in zip(runtimes, medians, answers, strict=True)
    ]


def _runtimes(classifier: PackagedClassifier) -> Iterator[Runtime]:
    device, network = classifier.device, classifier.network
    if network is None:
        yield classifier.runtime
        return
    yield TorchRuntime(network, device)
    for dtype in dict.fromkeys((torch.float32, torch.bfloat16, fast_dtype(device))):
        precision = str(dtype).removeprefix("torch.")
        yield TorchRuntime(inference_copy(network, dtype), device, name="torch-folded", precision=precision)
    try:
        shape = [1, classifier.card.input.channels, classifier.card.input.rows, classifier.card.input.columns]
        if classifier.card.input.slices:
            shape.insert(2, classifier.card.input.slices)
        content = onnx_of(fold_batch_norm(network).to("cpu"), torch.zeros(shape))
    except ModelError as error:
        click.echo(f"without ONNX: {error}", err=True)
        return
    yield OnnxRuntime(content, device, where=classifier.card.name)


def _works(runtime: Runtime, classifier: PackagedClassifier) -> bool:
    try:
        runtime(probes(classifier.card).to(classifier.device))
    except (NotImplementedError, RuntimeError) as error:
        click.echo(f"without {runtime.name} {runtime.precision}: {type(error).__name__}", err=True)
        return False
    return True


def _timed(runtime: Runtime, inputs: torch.Tensor) -> float:
    if inputs.is_cuda:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    runtime(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun
