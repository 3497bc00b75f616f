"""Layer-wise relevance propagation: the logit, handed back layer by layer until it lies on the pixels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from service.errors import UnsupportedMethodError
from service.results import Measure
from workers.explainers.batching import out_of_memory
from workers.explainers.bounds import real
from workers.explainers.copies import graph_copy
from workers.explainers.evidence import contrast
from workers.explainers.gradients import on_places
from workers.explainers.relevance_flow import Composite, propagate
from workers.explainers.relevance_rules import AlphaBeta, Epsilon, Flat, Gamma
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.explainers.relevance_rules import Rule
    from workers.interfaces import Classifier

NEARLY_ZERO = 1e-6
"""Epsilon where it only keeps divisions finite."""
LEAST_SHARE = 1e-3
"""A conservation error is a share of the logit, but no less than this share of all relevance, signs left out: the sum
of large values that cancel out is rounding."""


class _Relevance:
    """What the four forms of the method share; they differ in which rule goes where.

    Batch norm is folded into the layer before it; where there is none (DenseNet), it is a layer of its own. What
    biases contribute is shared out among the inputs, so the map sums to the logit; the error of that is reported.
    """

    name: str
    title: str
    cost = 12

    def __init__(self, composite: Composite, parameters: Mapping[str, str]) -> None:
        self._composite = composite
        self._parameters = parameters

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain all labels in one pass; the map lies on the input's grid, in logits.

        Raises:
            UnsupportedMethodError: the model gives no gradients, has an operation without a rule, or there is no
                memory.
        """
        begun = time.perf_counter()
        relevance, logits = self._propagate(classifier, batch, labels)
        seconds = (time.perf_counter() - begun) / max(len(labels), 1)
        return [
            Explanation(
                label=label,
                map=on_places(relevance[row]),
                parameters=self._parameters,
                seconds=seconds,
                measures=(_conservation(relevance[row], float(logits[row])),),
            )
            for row, label in enumerate(labels)
        ]

    def _propagate(
        self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for device in dict.fromkeys((classifier.device, torch.device("cpu"))):
            graph = graph_copy(classifier, device)
            try:
                with torch.no_grad():
                    outputs = graph(batch.to(device))[0]
                weights = contrast(classifier.card, outputs, labels)
                return propagate(graph, batch.to(device), weights, self._composite), weights @ outputs
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
        raise UnsupportedMethodError("there is not enough memory to propagate relevance")


class LrpComposite(_Relevance):
    """Layer-wise relevance propagation, each depth of the network with the rule that suits it.

    Source: Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10, and Kohlbrenner et al. 2020, "Towards Best Practice
    in Explaining Neural Network Decisions with LRP", arXiv:1910.09840: epsilon at the top, z+ in convolutions, flat in
    the first layer.

    Args:
        epsilon: damping of the linear layers at the top, as a share of their outputs' root mean square.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "lrp"
    title = "LRP (composite)"

    def __init__(self, *, epsilon: float = NEARLY_ZERO) -> None:
        dense = Epsilon(epsilon=real("epsilon", epsilon, 0.0, 100.0))
        rules = Composite(first=Flat(), convolution=AlphaBeta(alpha=1.0), dense=dense)
        super().__init__(rules, {"rules": "epsilon, z+, flat", "epsilon": f"{epsilon:g}"})


class LrpEpsilon(_Relevance):
    """Layer-wise relevance propagation by the epsilon rule in every layer: near to input times gradient, damped.

    Source: Bach et al. 2015, doi:10.1371/journal.pone.0130140, equation 58.

    Args:
        epsilon: damping, as a share of a layer's outputs' root mean square.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "lrp-epsilon"
    title = "LRP (epsilon)"

    def __init__(self, *, epsilon: float = 0.25) -> None:
        rule = Epsilon(epsilon=real("epsilon", epsilon, 0.0, 100.0))
        composite = Composite(first=rule, convolution=rule, dense=rule)
        super().__init__(composite, {"rules": "epsilon", "epsilon": f"{epsilon:g}"})


class LrpGamma(_Relevance):
    """Layer-wise relevance propagation by the gamma rule, which favours what agrees with each sum's sign.

    Source: Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10. Linear layers at the top use epsilon, so that
    evidence against a finding keeps its sign.

    Args:
        gamma: 0 favours nothing; very large is z+.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "lrp-gamma"
    title = "LRP (gamma)"

    def __init__(self, *, gamma: float = 0.25) -> None:
        rule = Gamma(gamma=real("gamma", gamma, 0.0, 1e6))
        super().__init__(_below_the_top(rule), {"rules": "gamma, epsilon at the top", "gamma": f"{gamma:g}"})


class LrpAlphaBeta(_Relevance):
    """Layer-wise relevance propagation by the alpha-beta rule, which keeps positive and negative apart.

    Source: Bach et al. 2015, doi:10.1371/journal.pone.0130140, equation 60. Linear layers at the top use epsilon. With
    alpha above 1 both signs grow by up to 2 alpha - 1 in every layer, so deep networks need alpha near 1; the
    conservation error says when it was too much.

    Args:
        alpha: beta is alpha - 1.

    Raises:
        ValueError: a parameter is out of its bounds.
    """

    name = "lrp-alpha-beta"
    title = "LRP (alpha-beta)"

    def __init__(self, *, alpha: float = 1.0) -> None:
        rule = AlphaBeta(alpha=real("alpha", alpha, 1.0, 10.0))
        super().__init__(_below_the_top(rule), {"rules": "alpha-beta, epsilon at the top", "alpha": f"{alpha:g}"})


def _below_the_top(rule: Rule) -> Composite:
    return Composite(first=rule, convolution=rule, dense=Epsilon(epsilon=NEARLY_ZERO))


def _conservation(relevance: torch.Tensor, logit: float) -> Measure:
    whole = float(relevance.double().abs().sum())
    error = abs(float(relevance.double().sum()) - logit)
    share = error / max(abs(logit), LEAST_SHARE * whole, 1e-12)
    return Measure(name="conservation", title="Conservation error", value=share)
