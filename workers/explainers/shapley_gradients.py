"""Shapley values by way of gradients: GradientSHAP and DeepSHAP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from service.errors import UnsupportedMethodError
from service.types import Measure
from workers.explainers.baselines import REFERENCES, references
from workers.explainers.batching import out_of_memory
from workers.explainers.bounds import choice, real, whole
from workers.explainers.copies import PRECISIONS, graph_copy
from workers.explainers.gradients import on_places
from workers.explainers.passes import Gradients
from workers.explainers.rescale import rescaled_multipliers
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.interfaces import Classifier

TOGETHER = {"cpu": 4, "cuda": 32}
"""Baselines of DeepSHAP in one pass; each is a pair of inputs."""


class GradientShap:
    """Expected gradients: Integrated Gradients at random points between the image and several baselines.

    Source: Lundberg and Lee 2017, arXiv:1705.07874; Erion et al. 2021, "Improving performance of deep learning models
    with axiomatic attribution priors and expected gradients", arXiv:1906.10670. In logits; it sums to the logit less
    the mean of the baselines', up to the error of sampling, which is reported.

    Args:
        samples: points, rounded up to a multiple of `baselines`; they are spread over the ways and shaken, so that far
            fewer do than of points drawn anyhow.
        references: `blurs` or `greys`, see `workers.explainers.baselines`.
        baselines: how many of them.
        noise: added to the image, as a share of its range; 0 as in the papers.
        precision: `auto`, `float32` or `bfloat16`.
        seed: of points and noise.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "gradient-shap"
    title = "GradientSHAP"
    cost = 110

    def __init__(
        self,
        *,
        samples: int = 64,
        references: str = "blurs",
        baselines: int = 8,
        noise: float = 0.0,
        precision: str = "auto",
        seed: int = 0,
    ) -> None:
        self._references = choice("references", references, REFERENCES)
        self._baselines = whole("baselines", baselines, 1, 1000)
        self._samples = -(-whole("samples", samples, 1, 10_000) // self._baselines) * self._baselines
        self._noise = real("noise", noise, 0.0, 10.0)
        self._precision = choice("precision", precision, PRECISIONS)
        self._seed = whole("seed", seed, 0, 2**32 - 1)

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain all labels from the same points.

        Raises:
            UnsupportedMethodError: the model gives no gradients, or there is no memory.
        """
        begun = time.perf_counter()
        gradients = Gradients(classifier, batch.shape[1:], self._precision)
        image = batch.detach().cpu()
        starts = references(image, self._references, self._baselines)
        inputs, differences = self._points(image, starts)
        found = torch.zeros(len(labels), *batch.shape[1:])
        for where, _, part in gradients(inputs, labels):
            found += (part * differences[where]).sum(dim=1) / self._samples
        logits = gradients.exact_logits(torch.cat([image, starts]))[:, list(labels)]
        change = logits[0] - logits[1:].mean(dim=0)
        parameters = {
            "samples": str(self._samples),
            "references": self._references,
            "baselines": str(self._baselines),
            "noise": f"{self._noise:g}",
            "precision": gradients.precision,
            "seed": str(self._seed),
        }
        return _explanations(labels, found, change, parameters=parameters, begun=begun, samples=self._samples)

    def _points(self, image: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return points on the ways and the ways themselves, each (samples, channels, ...)."""
        generator = torch.Generator().manual_seed(self._seed)
        index = torch.arange(self._samples)
        rounds = self._samples // self._baselines
        # Each round covers its part of the way once, in as many pieces as there are baselines, dealt out anew: so every
        # baseline's points are spread, and those of all of them together are spread more finely.
        dealt = torch.cat([torch.randperm(self._baselines, generator=generator) for _ in range(rounds)])
        shaken = torch.rand(self._samples, generator=generator)
        shares = (index // self._baselines + (dealt + shaken) / self._baselines) / rounds
        noise = torch.randn(self._samples, *image.shape[1:], generator=generator)
        ends = image + noise * (self._noise * float(image.max() - image.min()))
        ways = ends - starts[index % self._baselines]
        return starts[index % self._baselines] + shares.reshape(-1, *[1] * (image.ndim - 1)) * ways, ways


class DeepShap:
    """DeepLIFT's rescale rule, averaged over several baselines: differences handed back through the network.

    Source: Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences",
    arXiv:1704.02685; Lundberg and Lee 2017, arXiv:1705.07874, section 4.2. In logits; it sums to the logit less the
    mean of the baselines', the error of which is reported.

    Args:
        references: `blurs` or `greys`, see `workers.explainers.baselines`.
        baselines: how many of them.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "deep-shap"
    title = "DeepSHAP"
    cost = 50

    def __init__(self, *, references: str = "blurs", baselines: int = 8) -> None:
        self._references = choice("references", references, REFERENCES)
        self._baselines = whole("baselines", baselines, 1, 1000)

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label.

        Raises:
            UnsupportedMethodError: the model gives no gradients, has an operation that differences cannot go through,
                or there is no memory.
        """
        begun = time.perf_counter()
        starts = references(batch.detach(), self._references, self._baselines)
        found, change = deep_shap(classifier, batch, starts, labels)
        parameters = {"references": self._references, "baselines": str(self._baselines)}
        return _explanations(labels, found, change, parameters=parameters, begun=begun, samples=self._baselines)


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
            answer = rescaled_multipliers(graph_copy(classifier, device), batch.to(device), some, labels)
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
    samples: int,
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
                Measure(name="samples", title="Samples", value=float(samples)),
            ),
        )
        for row, label in enumerate(labels)
    ]
