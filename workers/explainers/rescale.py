"""DeepLIFT's rescale rule: gradients in which every bend is replaced by the slope between two inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from service.errors import UnsupportedMethodError
from workers.explainers.graph import Kind, described, kind

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[torch.Tensor], torch.Tensor]

SAME = 1e-10
"""Inputs that differ by no more count as equal: the slope between them would be rounding."""


class _Bend(torch.autograd.Function):
    """A function that bends; the first half of the batch are images, the second half their baselines."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, function: Function) -> torch.Tensor:
        y = function(x)
        ctx.save_for_backward(x, y)
        ctx.function = function
        return y


class _RescaledActivation(_Bend):
    """A function of single values."""

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, y = ctx.saved_tensors
        (image, start), (above, below) = x.chunk(2), y.chunk(2)
        gradient = gradients[0].chunk(2)[0]
        difference = image - start
        same = difference.abs() <= SAME
        slope = (above - below) / torch.where(same, torch.ones_like(difference), difference)
        with torch.enable_grad():
            leaf = image.detach().requires_grad_()
            (tangent,) = torch.autograd.grad(ctx.function(leaf).sum(), leaf)
        return torch.cat([gradient * torch.where(same, tangent, slope), torch.zeros_like(gradient)]), None


class _RescaledMaximum(_Bend):
    """A largest value over places: what it gained is shared by the place that wins now and the one that won before.

    The way of SHAP's DeepExplainer: from the baseline's largest value up to the larger of both goes to the image's
    winner, the rest to the baseline's; the sum is the whole difference.
    """

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, y = ctx.saved_tensors
        (image, start), (above, below) = x.chunk(2), y.chunk(2)
        gradient = gradients[0].chunk(2)[0]
        larger = torch.maximum(above, below)
        shares = torch.cat([gradient * (larger - below), gradient * (above - larger)])
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (won,) = torch.autograd.grad(ctx.function(leaf), leaf, shares)
        now, before = won.chunk(2)
        difference = image - start
        same = difference.abs() <= SAME
        result = (now + before) / torch.where(same, torch.ones_like(difference), difference)
        result = torch.where(same, torch.zeros_like(result), result)
        return torch.cat([result, torch.zeros_like(result)]), None


class _Rescaled(fx.Interpreter):
    """Computes a graph whose bends go back by the rescale rule; everything else is linear and stays as it is."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self._graph = graph

    def run_node(self, n: fx.Node) -> object:
        what = kind(n, self._graph)
        if what is Kind.OTHER and n.op.startswith("call_") and _sees_tensors(n, self.env):
            raise UnsupportedMethodError(f"differences cannot go through {described(n, self._graph)}")
        if what not in {Kind.ACTIVATION, Kind.MAXIMUM}:
            return super().run_node(n)
        arguments, keywords = self.fetch_args_kwargs_from_env(n)
        call = getattr(self, n.op)

        def function(x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = call(n.target, (x, *arguments[1:]), keywords)
            return result

        rule = _RescaledActivation if what is Kind.ACTIVATION else _RescaledMaximum
        rescaled: object = rule.apply(arguments[0], function)  # type: ignore[no-untyped-call]
        return rescaled


def _sees_tensors(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Tell whether a value that depends on the input goes into an operation and comes out as a number to go on with."""
    if node.target is getattr:  # a dtype or a shape, which no difference goes through
        return False
    return any(
        isinstance(value := values.get(part), torch.Tensor) and value.requires_grad for part in node.all_input_nodes
    )


def rescaled_multipliers(
    graph: fx.GraphModule, batch: torch.Tensor, baselines: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return multipliers and what each, times image less baseline, should sum to.

    Source: Shrikumar et al. 2017, arXiv:1704.02685, sections 3.2 and 3.5.1.

    Args:
        graph: the network, as a graph of operations.
        batch: one input, (1, channels, ...).
        baselines: (count, channels, ...).
        weights: of the outputs in each sum, (sums, labels); see `workers.explainers.evidence.contrast`.

    Returns:
        Multipliers (sums, count, channels, ...) and differences of the sums (sums, count).

    Raises:
        UnsupportedMethodError: the network has an operation that is neither linear nor one of those known to bend.
    """
    count = len(baselines)
    with torch.enable_grad():
        images = batch.detach().expand(count, *batch.shape[1:]).clone().requires_grad_()
        rescaled = _Rescaled(graph)
        logits = rescaled.run(torch.cat([images, baselines.detach()]))
        # It holds the answer, whose history holds the bends, which hold it: no collector of garbage sees through that.
        rescaled.env.clear()
        sums = logits @ weights.to(logits).T
        found = [torch.autograd.grad(column[:count].sum(), images, retain_graph=True)[0] for column in sums.T]
    changes = (sums[:count] - sums[count:]).detach().T
    return torch.stack(found), changes
