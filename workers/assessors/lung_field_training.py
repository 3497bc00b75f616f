"""`pellucid lung-field`: teaches the small network that outlines lungs, from clear films and phantoms.

The clear films' outlines come from a rule, the phantoms' are known; opacities, haze and white-outs are painted over
both. Nothing that a human outlined goes in.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import Progress
from safetensors.torch import save

from workers.assessors.lung_field import ASSET
from workers.training.films import SUFFIXES, read_grey
from workers.training.lung_network import SIDE, teach_lungs
from workers.training.lungs import lungs_by_threshold
from workers.training.prepare import draw_phantoms

FIRST_PHANTOM = 40_000_000
"""Seed; no benchmark and no training run of a classifier draws phantoms from here on."""


@click.command("lung-field")
@click.argument("films", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", default=Path(ASSET), show_default=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--films-used", default=500, show_default=True, type=click.IntRange(min=4), help="Of FILMS at most.")
@click.option("--phantoms", default=150, show_default=True, type=click.IntRange(min=0))
@click.option("--epochs", default=6, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True)
def lung_field(films: Path, *, out: Path, films_used: int, phantoms: int, epochs: int, seed: int) -> None:
    """Teach the lung-field network on FILMS, a folder of chest films without disease (PNG, JPEG)."""
    paths = sorted(path for path in films.rglob("*") if path.suffix.lower() in SUFFIXES)
    # Spread over the folder, whose neighbours are often films of one patient.
    paths = paths[:: max(1, len(paths) // films_used)][:films_used]
    with Progress() as progress:
        reading = progress.add_task("reading", total=len(paths) + phantoms)
        clear, known = [], []
        for path in paths:
            film = read_grey(path, rows=SIDE, columns=SIDE)
            if (mask := lungs_by_threshold(film)) is not None:
                clear.append(film)
                known.append(mask.astype(np.uint8))
            progress.advance(reading)
        drawn = draw_phantoms(
            phantoms, first=FIRST_PHANTOM, rows=SIDE, columns=SIDE, advance=lambda n: progress.advance(reading, n)
        )
        pixels, lungs = np.stack([*clear, *drawn.pixels]), np.stack([*known, *drawn.lungs])
        learning = progress.add_task(f"learning from {len(pixels)} films", total=epochs * len(pixels))
        network = teach_lungs(pixels, lungs, epochs=epochs, seed=seed, advance=lambda n: progress.advance(learning, n))
    # Half precision halves the file; a probability held against 0.5 needs no more.
    tensors = {
        name: tensor.half().contiguous() if tensor.dtype == torch.float32 else tensor
        for name, tensor in network.state_dict().items()
    }
    out.write_bytes(save(tensors))
    click.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {len(clear)} of {len(paths)} films had clear lungs")
