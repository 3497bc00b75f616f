"""`pellucid bench explainers`: every method beside the library that a user would pick, in one run.

Method and peer take turns on the same network, image and machine, so a busy neighbour slows both; processor time is
reported beside wall time for the same reason. Fidelity is deletion and insertion AUC of both maps by the same measure.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from dicom_nodes.objects.read import read_image
from service.cli import UsageError, settings_of
from service.validation import nearest
from workers.assessors.case import rank_correlation
from workers.bench_comparison import Bench, Figures, total
from workers.bench_graphs import graph_with_head
from workers.bench_peers import PEERS, REGIONS, Task, lime, quiet
from workers.device import choose_device
from workers.explainers.kernel_shap import KernelShap
from workers.explainers.lime import Lime
from workers.explainers.superpixels import superpixels
from workers.models.folding import fast_dtype
from workers.models.package import load_package
from workers.phantom.files import write_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workers.models.package import PackagedClassifier

LARGE = "pneumonia-resnet50"
"""The network that the case studies explain, and that libraries take minutes for."""
REFERENCE_SAMPLES = 20_000
REFERENCE_SEED = 1_000_003
OTHER_SEEDS = (0, 1, 2)
MINIMUM_PEER_SAMPLES = 120
"""With fewer KernelSHAP of `shap` has more unknowns than answers."""
LIBRARIES = ("torch", "captum", "lime", "shap", "scikit-learn", "scikit-image")


@click.command()
@click.option("--model", "name", default=LARGE, show_default=True, help="Name of a package.")
@click.option("--graph", default="", help="Use this graph instead, with random features and a fitted head.")
@click.option("--methods", default="", help="Names, separated by commas; default: all that are registered.")
@click.option("--peers/--no-peers", "with_peers", default=True, show_default=True)
@click.option(
    "--peer-samples",
    type=click.IntRange(min=MINIMUM_PEER_SAMPLES),
    help="Let lime and shap take no more samples than these; the time of the rest is added at the pace of the network "
    "alone, and their fidelity left out. For large networks.",
)
@click.option("--reference", is_flag=True, help="Also compare LIME and SHAP with 20,000 samples. Takes long.")
@click.option("--seed", default=11, show_default=True, type=click.IntRange(min=0), help="Of the phantom.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def explainers(  # noqa: PLR0917 - click passes options by name
    ctx: click.Context,
    name: str,
    graph: str,
    methods: str,
    with_peers: bool,
    peer_samples: int | None,
    reference: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Measure each explanation method beside captum, `lime` and `shap` (extra `peers`), at their defaults."""
    settings = settings_of(ctx)
    known = [card.parent.name for card in settings.models_directory.glob("*/model.toml")]
    if name not in known:
        raise UsageError(f"there is no model '{name}'{nearest(name, known)}")
    classifier = load_package(settings.models_directory / name, choose_device(settings.worker.device))
    if graph:
        classifier = graph_with_head(classifier, graph)
    wanted = _names(methods)
    image, other = _films(classifier, seed)
    bench = Bench(classifier, image, other, peer_samples)
    found: dict[str, Figures] = {}
    with Progress(console=Console(stderr=True)) as progress:
        for method in progress.track(wanted, description="methods"):
            found[method] = bench.compare(method, with_peers=with_peers)
            progress.console.print(_row(method, found[method]), highlight=False, markup=False, soft_wrap=True)
    both = [
        method for method, figure in found.items() if figure.seconds is not None and figure.peer_seconds is not None
    ]
    figures: dict[str, object] = {
        "model": graph or name,
        "methods": {method: asdict(figure) for method, figure in found.items()},
        "total": total(found, bench.together(both) if both else None),
        "peak_memory_mb": round(bench.peak_mb, 1),
        "machine": machine(classifier.device),
    }
    if reference:
        with Console(stderr=True).status("reference") as status:
            figures["reference"] = references(bench.task, classifier, progress=status.update)
    click.echo(json.dumps(figures, indent=2) if as_json else _table(found, figures))


def machine(device: torch.device) -> dict[str, object]:
    """Say on what the figures were measured."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "fast_precision": str(fast_dtype(device)).removeprefix("torch."),
        "load": round(os.getloadavg()[0], 1),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def references(
    task: Task, classifier: PackagedClassifier, *, progress: Callable[[str], None] = lambda _: None
) -> dict[str, object]:
    """Compare LIME and SHAP with 20,000 samples: rank correlation over the same superpixels, hidden alike.

    `lime` can only hide by one colour, so both sides hide by the mean there, and both explain the logit.
    """
    regions = superpixels(task.batch, REGIONS)
    first = np.unique(regions, return_index=True)[1]

    def values(map_: torch.Tensor) -> np.ndarray:
        return map_.numpy().ravel()[first].astype(np.float32)

    def ours(make: type[Lime | KernelShap], samples: int | None, seed: int) -> np.ndarray:
        options: dict[str, object] = {"replacement": "mean" if make is Lime else "dark", "seed": seed}
        if samples is not None:
            options |= {"samples": samples, "stability": 1.0}
        return values(make(**options).explain(classifier, task.batch, [task.label])[0].map)  # type: ignore[arg-type]

    result: dict[str, object] = {"samples": REFERENCE_SAMPLES}
    for make, peer in ((Lime, partial(lime, regions=regions)), (KernelShap, PEERS["kernel-shap"][1])):
        progress(f"{make.name}: {REFERENCE_SAMPLES} samples")
        truth = ours(make, REFERENCE_SAMPLES, REFERENCE_SEED)
        progress(f"{make.name}: ours and the library's")
        repeats = [rank_correlation(ours(make, None, seed), truth) for seed in OTHER_SEEDS]
        with quiet():
            theirs = rank_correlation(values(peer(task).map), truth)
        result[make.name] = {
            "rank_correlation": round(float(np.mean(repeats)), 4),
            "peer_rank_correlation": round(theirs, 4),
        }
    return result


def _films(classifier: PackagedClassifier, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a chest phantom with an opacity and another one without, preprocessed."""
    with TemporaryDirectory(prefix="pellucid-bench-") as folder:
        files = write_samples(Path(folder), count=2, seed=seed)
        image, other = (classifier.preprocess(read_image(file).image) for file in files)
    return image, other


def _names(methods: str) -> list[str]:
    known = sorted(entry.name for entry in entry_points(group="pellucid.explainers"))
    wanted = [name.strip() for name in methods.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no method '{name}'{nearest(name, known)}")
    return wanted or known


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _table(found: Mapping[str, Figures], figures: Mapping[str, object]) -> str:
    lines = [f"{'method':22} {'s':>9} {'peer s':>9} {'ratio':>7} {'CPU':>7}  deletion / insertion (peer)"]
    lines += [_row(name, f) for name, f in found.items()]
    rest = {key: value for key, value in figures.items() if key != "methods"}
    return "\n".join([*lines, *(f"{key}: {json.dumps(value)}" for key, value in rest.items())])


def _row(name: str, f: Figures) -> str:
    limited = f.peer_samples is not None and f.peer_samples != f.peer_samples_run
    return (
        f"{name:22} {_cell(f.seconds)} {_cell(f.peer_seconds)} {_cell(f.ratio, 7)} {_cell(f.cpu_ratio, 7)}  "
        f"{_cell(f.deletion_auc, 5)} / {_cell(f.insertion_auc, 5)} "
        f"({_cell(f.peer_deletion_auc, 5)} / {_cell(f.peer_insertion_auc, 5)}) {f.failed or f.peer_failed or ''}"
        + (f"  peer: {f.peer_samples_run} of {f.peer_samples} samples run, the rest extrapolated" if limited else "")
    )


def _cell(value: float | None, width: int = 9) -> str:
    return f"{value:{width}.2f}" if value is not None else "-".rjust(width)
