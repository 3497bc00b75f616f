"""What a small change of each pixel would do to a finding: saliency, SmoothGrad, input times gradient."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from service.results import Measure
from workers.explainers.bounds import choice, real, whole
from workers.explainers.copies import PRECISIONS
from workers.explainers.passes import Gradients, shared_pass
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.interfaces import Classifier

SIGNS = ("magnitude", "signed")
BACKWARD = 3
"""Forward passes that one forward and backward pass costs."""
TOGETHER = 8
"""Samples between two looks at how stable their mean is."""


def on_places(attribution: torch.Tensor) -> torch.Tensor:
    """Sum over channels: (channels, ...) to float32 of the spatial shape, on the CPU."""
    return attribution.detach().sum(dim=0).float().cpu()


def _drawn(gradient: torch.Tensor, sign: str) -> torch.Tensor:
    """Return a gradient as a map: the largest magnitude of the channels as in the paper, or the signed sum."""
    return gradient.detach().abs().amax(dim=0).float().cpu() if sign == "magnitude" else on_places(gradient)


class Saliency:
    """The gradient of the logit by the input.

    Source: Simonyan, Vedaldi and Zisserman 2014, "Deep Inside Convolutional Networks", arXiv:1312.6034. In logits per
    unit of the network's input; its grid is the input's.

    Args:
        sign: `magnitude`, the largest over channels, as in the paper: how sensitive, not in which direction; or
            `signed`: positive where more brightness would raise the logit.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "saliency"
    title = "Saliency"
    cost = 4

    def __init__(self, *, sign: str = "magnitude") -> None:
        self._sign = choice("sign", sign, SIGNS)

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label.

        Raises:
            UnsupportedMethodError: the model gives no gradients.
        """
        found = []
        for label in labels:
            begun = time.perf_counter()
            drawn = _drawn(shared_pass(classifier, batch).at_input(label)[0], self._sign)
            seconds = time.perf_counter() - begun
            found.append(Explanation(label=label, map=drawn, parameters={"sign": self._sign}, seconds=seconds))
        return found


class Means:
    """The mean of attributions that are added in turn, and how well a repeat would agree with it.

    Args:
        labels: how many.
        shape: of one attribution, (channels, ...).
    """

    def __init__(self, labels: int, shape: Sequence[int]) -> None:
        self._halves = torch.zeros(2, labels, *shape)
        self._counts = torch.zeros(2)

    @property
    def mean(self) -> torch.Tensor:
        """Float32 (labels, channels, ...)."""
        return self._halves.sum(dim=0) / self._counts.sum().clamp_min(1.0)

    def add(self, attributions: torch.Tensor, groups: torch.Tensor) -> None:
        """Add attributions, (labels, count, channels, ...); those of one group (count,) fall into one half."""
        for half in (0, 1):
            chosen = groups % 2 == half
            self._halves[half] += attributions[:, chosen].sum(dim=1)
            self._counts[half] += int(chosen.sum())

    def reliability(self) -> float:
        """Return how an independent repeat of the same size would correlate with the mean, for the worst label.

        From the correlation of the two halves, place by place (Spearman 1910; Brown 1910, for doubled length).
        """
        if float(self._counts.min()) == 0:
            return 0.0
        first, second = (half.sum(dim=1).flatten(1).double() for half in self._halves)
        first, second = (values - values.mean(dim=1, keepdim=True) for values in (first, second))
        length = first.norm(dim=1) * second.norm(dim=1)
        alike = torch.where(length > 0, (first * second).sum(dim=1) / length, torch.ones_like(length))
        return float((2 * alike / (1 + alike.clamp_min(0.0))).clamp(0.0, 1.0).amin())

    def measures(self, samples: int) -> tuple[Measure, ...]:
        """Return what the map says of itself."""
        return (
            Measure(name="samples", title="Samples", value=float(samples)),
            Measure(name="stability-sampling", title="Correlation expected of a repeat", value=self.reliability()),
        )


class InputXGradient:
    """The input times the gradient of the logit by it: a first-order guess at what each pixel contributes.

    Source: Shrikumar et al. 2016, "Not Just a Black Box", arXiv:1605.01713. In logits, against a baseline of zero,
    which is the mean grey of a standardised film: what is mean grey gets nothing.
    """

    name = "input-x-gradient"
    title = "Input x gradient"
    cost = 4

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain each label.

        Raises:
            UnsupportedMethodError: the model gives no gradients.
        """
        found = []
        for label in labels:
            begun = time.perf_counter()
            product = on_places((shared_pass(classifier, batch).at_input(label) * batch)[0])
            seconds = time.perf_counter() - begun
            found.append(Explanation(label=label, map=product, parameters={"baseline": "zero"}, seconds=seconds))
        return found


class SmoothGrad:
    """The mean gradient over copies of the image with noise added: saliency without its grain.

    Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise", arXiv:1706.03825. In logits per unit of
    the network's input.

    Args:
        samples: at most so many noisy copies; every other one is the mirror of the one before (minus its noise), which
            halves what noise is left at no cost.
        stability: stop when an independent repeat would correlate this well with the map; see `reliability`.
        noise: its standard deviation as a share of the input's range; 0.1 to 0.2 in the paper.
        sign: as for `Saliency`; the magnitude is taken of the mean.
        precision: `auto`, `float32` or `bfloat16`; `auto` takes the fastest that ranks places as float32 does.
        seed: of the noise.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "smoothgrad"
    title = "SmoothGrad"

    def __init__(
        self,
        *,
        samples: int = 32,
        stability: float = 0.9,
        noise: float = 0.1,
        sign: str = "magnitude",
        precision: str = "auto",
        seed: int = 0,
    ) -> None:
        self._samples = whole("samples", samples, 2, 10_000)
        self._stability = real("stability", stability, 0.0, 1.0)
        self._noise = real("noise", noise, 0.0, 10.0)
        self._sign = choice("sign", sign, SIGNS)
        self._precision = choice("precision", precision, PRECISIONS)
        self._seed = whole("seed", seed, 0, 2**32 - 1)
        self.cost = BACKWARD * samples

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain all labels from the same noisy copies.

        Raises:
            UnsupportedMethodError: the model gives no gradients, or there is no memory.
        """
        begun = time.perf_counter()
        gradients = Gradients(classifier, batch.shape[1:], self._precision)
        means = Means(len(labels), batch.shape[1:])
        copies = self._noisy(batch)
        while gradients.count < self._samples and means.reliability() < self._stability:
            part = copies[gradients.count : gradients.count + TOGETHER]
            for where, _, found in gradients(part, labels):
                means.add(found, torch.arange(where.start, where.stop) // 2)
        seconds = (time.perf_counter() - begun) / max(len(labels), 1)
        parameters = {
            "samples": f"at most {self._samples}",
            "stability": f"{self._stability:g}",
            "noise": f"{self._noise:g}",
            "sign": self._sign,
            "precision": gradients.precision,
            "seed": str(self._seed),
        }
        measures = means.measures(gradients.count)
        return [
            Explanation(
                label=label, map=_drawn(mean, self._sign), parameters=parameters, seconds=seconds, measures=measures
            )
            for label, mean in zip(labels, means.mean, strict=True)
        ]

    def _noisy(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (samples, channels, ...), drawn on the CPU so that every device sees the same noise."""
        generator = torch.Generator().manual_seed(self._seed)
        spread = self._noise * float(batch.max() - batch.min())
        drawn = torch.randn((self._samples + 1) // 2, *batch.shape[1:], generator=generator) * spread
        pairs = torch.stack([drawn, -drawn], dim=1).flatten(0, 1)[: self._samples]
        return batch.detach().cpu() + pairs
