"""How good a network is on validation films: the class, and where its class activation lies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from workers.device import autocast
from workers.evaluation.figures import auc, confuse
from workers.preprocess import resize, standardize
from workers.training.augment import Batch, augment, widen
from workers.training.corpus import Corpus, as_films, as_masks, phantom_example
from workers.training.objective import LUNG_MARGIN, Activation
from workers.training.plant import plant

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

CHUNK = 64
HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of one epoch, all in [0, 1]; NaN where nothing was there to measure."""

    auc: float
    """On the validation films as they are."""
    accuracy: float
    """Mean of sensitivity and specificity at the logit 0."""
    harder_auc: float
    """On the same films under augmentation: a stand-in for another hospital's."""
    harder_accuracy: float
    lung_energy: float
    """Share of positive class activation inside the lung estimate (with a margin), on films with the finding."""
    pointing: float
    """Share of planted opacities that hold the maximum of the map."""
    planted_energy: float
    """Share of positive class activation inside the planted opacities."""
    phantom_auc: float
    """Phantoms with opacities against phantoms without."""
    phantom_pointing: float
    """As `pointing`, on phantoms."""

    @property
    def selection(self) -> float:
        """What the best epoch is chosen by: the class on both kinds of film, then where the map lies."""
        parts = (self.auc, self.accuracy, self.harder_auc, self.harder_accuracy)
        where = (self.lung_energy, self.pointing, self.planted_energy, self.phantom_pointing)
        places = [value for value in where if np.isfinite(value)]
        return float(np.mean(parts)) + 0.1 * (float(np.mean(places)) if places else 0.0)

    def as_dict(self) -> dict[str, float]:
        """Return plain numbers for the log."""
        return {**asdict(self), "selection": self.selection}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Logits on validation films, float64 (films,): as they are and under augmentation."""

    plain: NDArray[np.float64]
    harder: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A network's scores with the logits they came from."""

    scores: Scores
    answers: Answers


def examine(
    network: nn.Module,
    cam_layer: str,
    corpus: Corpus,
    *,
    device: torch.device,
    seed: int,
    side: int,
    bfloat16: bool = False,
) -> Examination:
    """Examine a network in evaluation mode on films of `side` pixels; one `seed` plants and augments one way."""
    films = as_films(corpus.films.pixels)
    lungs = as_masks(corpus.lungs, films)
    truth = corpus.films.labels
    empty = torch.zeros_like(films)
    with (
        torch.inference_mode(),
        Activation(network, cam_layer) as activation,
        autocast(device, enabled=bfloat16),
    ):
        run = partial(_run, network, activation, device=device, side=side)
        plain, maps = run(films)
        generator = torch.Generator().manual_seed(seed)
        varied = [
            augment(Batch(films=f, lungs=g, masks=m), generator).films
            for f, g, m in zip(*(torch.split(t, CHUNK) for t in (films, lungs, empty)), strict=True)
        ]
        harder, _ = run(torch.cat(varied))
        clear = (truth == 0) & corpus.lungs.any(axis=(1, 2))
        planted = plant(films[clear], lungs[clear], generator)
        _, planted_maps = run(planted.films)
        phantoms = phantom_example(corpus.phantoms)
        phantom_logits, phantom_maps = run(phantoms.batch.films)
    sick = (truth == 1) & corpus.lungs.any(axis=(1, 2))
    pointing, planted_energy = _pointing(planted_maps, planted.masks)
    scores = Scores(
        auc=auc(truth, plain),
        accuracy=_balanced(truth, plain),
        harder_auc=auc(truth, harder),
        harder_accuracy=_balanced(truth, harder),
        lung_energy=_energy(maps[sick], widen(lungs[sick], LUNG_MARGIN)),
        pointing=pointing,
        planted_energy=planted_energy,
        phantom_auc=auc(phantoms.truth[:, 0].long().numpy(), phantom_logits),
        phantom_pointing=_pointing(phantom_maps, (phantoms.batch.masks > HALF).float())[0],
    )
    return Examination(scores=scores, answers=Answers(plain=plain, harder=harder))


def _run(
    network: nn.Module, activation: Activation, films: torch.Tensor, *, device: torch.device, side: int
) -> tuple[NDArray[np.float64], torch.Tensor]:
    if len(films) == 0:
        return np.zeros(0), torch.zeros((0, 1, 1, 1))
    logits, maps = [], []
    for chunk in torch.split(films, CHUNK):
        logits.append(network(standardize(resize(chunk, side, side)).to(device))[:, 0].double().cpu())
        maps.append(activation.map().cpu())
    return torch.cat(logits).numpy(), torch.cat(maps)


def _balanced(truth: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    at = confuse(truth, logits, 0.0)
    return (at.sensitivity + at.specificity) / 2


def _energy(maps: torch.Tensor, regions: torch.Tensor) -> float:
    if len(maps) == 0:
        return float("nan")
    evidence = maps.clamp_min(0)
    inside = evidence * F.adaptive_avg_pool2d(regions, (maps.shape[-2], maps.shape[-1]))
    return float((inside.sum(dim=(1, 2, 3)) / evidence.sum(dim=(1, 2, 3)).clamp_min(1e-6)).mean())


def _pointing(maps: torch.Tensor, masks: torch.Tensor) -> tuple[float, float]:
    """Return the share of maxima inside the masks and the mean energy inside, on the films' own grid."""
    there = masks.amax(dim=(1, 2, 3)) > 0 if len(masks) else torch.zeros(0, dtype=torch.bool)
    if not bool(there.any()):
        return float("nan"), float("nan")
    masks = masks[there]
    fine = F.interpolate(maps[there].clamp_min(0), size=masks.shape[-2:], mode="bilinear", align_corners=False)
    peak = fine.flatten(1).argmax(dim=1, keepdim=True)
    hits = masks.flatten(1).gather(1, peak).mean()
    energy = (fine * masks).sum(dim=(1, 2, 3)) / fine.sum(dim=(1, 2, 3)).clamp_min(1e-6)
    return float(hits), float(energy.mean())
