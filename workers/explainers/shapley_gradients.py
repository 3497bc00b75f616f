"""Shapley values by way of gradients: GradientSHAP and DeepSHAP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from service.errors import UnsupportedMethodError
from service.results import Measure
from workers.explainers.baselines import REFERENCES, references
from workers.explainers.batching import out_of_memory
from workers.explainers.bounds import choice, real, whole
from workers.explainers.copies import PRECISIONS, graph_copy
from workers.explainers.evidence import contrast
from workers.explainers.gradients import BACKWARD, Means, on_places
from workers.explainers.passes import Gradients
from workers.explainers.rescale import rescaled_multipliers
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.interfaces import Classifier

TOGETHER = {"cpu": 4, "cuda": 32}
"""Baselines of DeepSHAP in one pass; each is a pair of inputs."""


GOLDEN = (5**0.5 - 1) / 2


class GradientShap:
    """Expected gradients: Integrated Gradients at random points between the image and several baselines.

    Source: Lundberg and Lee 2017, arXiv:1705.07874; Erion et al. 2021, "Improving performance of deep learning models
    with axiomatic attribution priors and expected gradients", arXiv:1906.10670. In logits; it sums to the logit less
    the mean of the baselines', up to the error of sampling, which is reported.

    Args:
        samples: at most so many points, rounded up to a multiple of `baselines`; they are spread over the ways and
            shaken, so that far fewer do than of points drawn anyhow.
        stability: stop when an independent repeat would correlate this well with the map.
        references: `darks`, `blurs` or `greys`, see `workers.explainers.baselines`.
        baselines: how many of them.
        noise: added to the image, as a share of its range; 0 as in the papers.
        precision: `auto`, `float32` or `bfloat16`.
        seed: of points and noise.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "gradient-shap"
    title = "GradientSHAP"

    def __init__(
        self,
        *,
        samples: int = 64,
        stability: float = 0.8,
        references: str = "darks",
        baselines: int = 8,
        noise: float = 0.0,
        precision: str = "auto",
        seed: int = 0,
    ) -> None:
        self._references = choice("references", references, REFERENCES)
        self._baselines = whole("baselines", baselines, 1, 1000)
        self._samples = -(-whole("samples", samples, 1, 10_000) // self._baselines) * self._baselines
        self._stability = real("stability", stability, 0.0, 1.0)
        self._noise = real("noise", noise, 0.0, 10.0)
        self._precision = choice("precision", precision, PRECISIONS)
        self._seed = whole("seed", seed, 0, 2**32 - 1)
        self.cost = BACKWARD * self._samples + self._baselines

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain all labels from the same points.

        Raises:
            UnsupportedMethodError: the model gives no gradients, or there is no memory.
        """
        begun = time.perf_counter()
        gradients = Gradients(classifier, batch.shape[1:], self._precision)
        image = batch.detach().cpu()
        starts = references(image, self._references, self._baselines)
        means = Means(len(labels), batch.shape[1:])
        generator = torch.Generator().manual_seed(self._seed)
        # Each round's points are spread over the way, and so are each baseline's over the rounds (Kronecker sequence).
        dealt = (torch.randperm(self._baselines, generator=generator) + torch.rand(1, generator=generator)).double()
        while gradients.count < self._samples and means.reliability() < self._stability:
            rounds = gradients.count // self._baselines
            shares = ((dealt / self._baselines + rounds * GOLDEN) % 1.0).float()
            inputs, ways = self._points(image, starts, shares, generator)
            for where, _, part in gradients(inputs, labels):
                means.add(part * ways[where], torch.full((where.stop - where.start,), rounds))
        # Sampling is off by far more than rounding, so the ends of the ways are asked in the precision of the rest.
        logits = gradients.logits(torch.cat([image, starts]))[:, list(labels)]
        change = logits[0] - logits[1:].mean(dim=0)
        parameters = {
            "samples": f"at most {self._samples}",
            "stability": f"{self._stability:g}",
            "references": self._references,
            "baselines": str(self._baselines),
            "noise": f"{self._noise:g}",
            "precision": gradients.precision,
            "seed": str(self._seed),
        }
        found, measures = means.mean, means.measures(gradients.count)
        return _explanations(labels, found, change, parameters=parameters, begun=begun, measures=measures)

    def _points(
        self, image: torch.Tensor, starts: torch.Tensor, shares: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a point on the way of each baseline, and the ways, each (baselines, channels, ...)."""
        noise = torch.randn(self._baselines, *image.shape[1:], generator=generator)
        ways = image + noise * (self._noise * float(image.max() - image.min())) - starts
        return starts + shares.reshape(-1, *[1] * (image.ndim - 1)) * ways, ways


class DeepShap:
    """DeepLIFT's rescale rule, averaged over several baselines: differences handed back through the network.

    Source: Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences",
    arXiv:1704.02685; Lundberg and Lee 2017, arXiv:1705.07874, section 4.2. In logits; it sums to the logit less the
    mean of the baselines', the error of which is reported.

    Args:
        references: `darks`, `blurs` or `greys`, see `workers.explainers.baselines`.
        baselines: how many of them.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "deep-shap"
    title = "DeepSHAP"

    def __init__(self, *, references: str = "darks", baselines: int = 2) -> None:
        self._references = choice("references", references, REFERENCES)
        self._baselines = whole("baselines", baselines, 1, 1000)
        # A pass over pairs, forward and back, in float32.
        self.cost = 2 * BACKWARD * baselines

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label.

        Raises:
            UnsupportedMethodError: the model gives no gradients, has an operation that differences cannot go through,
                or there is no memory.
        """
        begun = time.perf_counter()
        starts = references(batch.detach(), self._references, self._baselines)
        found, change = deep_shap(classifier, batch, starts, labels)
        measures = (Measure(name="samples", title="Samples", value=float(self._baselines)),)
        parameters = {"references": self._references, "baselines": str(self._baselines)}
        return _explanations(labels, found, change, parameters=parameters, begun=begun, measures=measures)


def deep_shap(
    classifier: Classifier, batch: torch.Tensor, baselines: torch.Tensor, labels: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return DeepSHAP of each label, (labels, channels, ...), and what it should sum to, float64 (labels); on the CPU.

    Args:
        classifier: the model.
        batch: one input, (1, channels, ...).
        baselines: (count, channels, ...).
        labels: indices into the card's labels.

    Raises:
        UnsupportedMethodError: as for `DeepShap.explain`.
    """
    device, size = classifier.device, TOGETHER.get(classifier.device.type, TOGETHER["cpu"])
    found = torch.zeros(len(labels), *batch.shape[1:])
    change = torch.zeros(len(labels), dtype=torch.float64)
    at = 0
    while at < len(baselines):
        some = baselines[at : at + size].to(device)
        answer = None
        try:
            graph = graph_copy(classifier, device)
            with torch.no_grad():
                weights = contrast(classifier.card, graph(batch.to(device))[0], labels)
            answer = rescaled_multipliers(graph, batch.to(device), some, weights)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Outside the handler: the error's frames hold the tensors that did not fit.
        if answer is not None:
            multipliers, changes = answer
            found += (multipliers * (batch.to(device) - some)).sum(dim=1).cpu() / len(baselines)
            change += changes.double().sum(dim=1).cpu() / len(baselines)
            at += len(some)
        elif size > 1:
            size //= 2
        elif device.type != "cpu":
            device, size = torch.device("cpu"), TOGETHER["cpu"]
        else:
            raise UnsupportedMethodError("there is not enough memory for a single baseline")
    return found, change


def _explanations(
    labels: Sequence[int],
    found: torch.Tensor,
    change: torch.Tensor,
    *,
    parameters: Mapping[str, str],
    begun: float,
    measures: tuple[Measure, ...],
) -> list[Explanation]:
    seconds = (time.perf_counter() - begun) / max(len(labels), 1)
    sums = found.double().flatten(1).sum(dim=1)
    errors = (sums - change).abs() / change.abs().clamp_min(1e-3)
    return [
        Explanation(
            label=label,
            map=on_places(found[row]),
            parameters=parameters,
            seconds=seconds,
            measures=(
                Measure(name="convergence-delta", title="Convergence delta", value=float(errors[row])),
                *measures,
            ),
        )
        for row, label in enumerate(labels)
    ]
