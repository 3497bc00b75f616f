"""Carries relevance backwards through a network's graph, operation by operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from service.errors import UnsupportedMethodError
from workers.explainers.graph import Evaluated, Kind, described, kind
from workers.explainers.relevance_rules import Operation, Rule, redistribute

if TYPE_CHECKING:
    from collections.abc import Iterator

_DENSE = (nn.Linear, F.linear)


@dataclass(frozen=True, kw_only=True)
class Composite:
    """Which rule goes where."""

    first: Rule
    """The layers that see the image."""
    convolution: Rule
    """Other convolutions, means over places, sums of branches."""
    dense: Rule
    """Linear layers without places."""


def propagate(graph: fx.GraphModule, batch: torch.Tensor, weights: torch.Tensor, rules: Composite) -> torch.Tensor:
    """Return the relevance of the input for each sum of outputs, (sums, channels, ...); each adds up to its sum.

    Args:
        graph: the network, as a graph of operations.
        batch: one input, (1, channels, ...), on the graph's device.
        weights: of the outputs in each sum, (sums, labels); see `workers.explainers.evidence.contrast`.
        rules: how layers share out relevance.

    Raises:
        UnsupportedMethodError: there is no rule for an operation of the network.
    """
    evaluated = Evaluated(graph)
    with torch.no_grad():
        logits = evaluated.run(batch.detach().expand(len(weights), *batch.shape[1:]).contiguous())
    start = weights.to(logits) * logits
    nodes = list(graph.graph.nodes)
    relevance: dict[fx.Node, torch.Tensor] = {nodes[-1].all_input_nodes[0]: start}
    first = _first_layers(graph)
    for node in reversed(nodes):
        if node.op == "placeholder" and node in relevance:
            return relevance[node]
        mine = relevance.pop(node, None)
        if mine is None:
            continue
        for source, share in _Step(evaluated, node, rules, first=node in first).backwards(mine):
            relevance[source] = relevance[source] + share if source in relevance else share
    raise UnsupportedMethodError("the network's output does not depend on its input")


def _first_layers(graph: fx.GraphModule) -> set[fx.Node]:
    """Return the linear layers with weights of their own that no other one comes before."""
    after: set[fx.Node] = set()
    first = set()
    for node in graph.graph.nodes:
        layer = kind(node, graph) is Kind.LINEAR and not _is_norm(node, graph)
        below = any(source in after for source in node.all_input_nodes)
        if layer and not below:
            first.add(node)
        if layer or below:
            after.add(node)
    return first


def _is_norm(node: fx.Node, graph: fx.GraphModule) -> bool:
    return node.op == "call_module" and hasattr(graph.get_submodule(str(node.target)), "running_var")


@dataclass(frozen=True)
class _Step:
    """One operation, about to be gone through backwards."""

    evaluated: Evaluated
    node: fx.Node
    rules: Composite
    first: bool

    def backwards(self, relevance: torch.Tensor) -> Iterator[tuple[fx.Node, torch.Tensor]]:
        """Yield the operations that this one sees, each with its share."""
        graph = self.evaluated.graph_module
        what = kind(self.node, graph)
        if what in {Kind.ACTIVATION, Kind.PASS}:
            yield self._source(), relevance
        elif what in {Kind.SHAPE, Kind.MAXIMUM}:
            # The largest value takes all: its gradient is 1, the others' 0. Where values only move, so does relevance.
            yield self._source(), self._pulled_back(relevance)
        elif what is Kind.CONCATENATION:
            yield from self._apart(relevance)
        elif what is Kind.SUM:
            yield from self._summands(relevance)
        elif what in {Kind.LINEAR, Kind.POOL}:
            source = self._source()
            inputs = self.evaluated.tensor(source)
            yield source, redistribute(self._rule(), self._operation(what, source), inputs, relevance)
        else:
            raise UnsupportedMethodError(f"relevance has no rule for {described(self.node, graph)}")

    def _source(self) -> fx.Node:
        return self.node.all_input_nodes[0]

    def _rule(self) -> Rule:
        if self.first:
            return self.rules.first
        module = self._module()
        dense = isinstance(module, nn.Linear) or self.node.target in _DENSE
        return self.rules.dense if dense else self.rules.convolution

    def _module(self) -> nn.Module | None:
        if self.node.op != "call_module":
            return None
        return self.evaluated.graph_module.get_submodule(str(self.node.target))

    def _pulled_back(self, relevance: torch.Tensor) -> torch.Tensor:
        source = self._source()
        with torch.enable_grad():
            leaf = self.evaluated.tensor(source).detach().requires_grad_()
            (pulled,) = torch.autograd.grad(self.evaluated.again(self.node, source, leaf), leaf, relevance)
        return pulled

    def _apart(self, relevance: torch.Tensor) -> Iterator[tuple[fx.Node, torch.Tensor]]:
        branches: Any = self.node.args[0]
        along: Any = self.node.kwargs.get("dim", self.node.args[1] if len(self.node.args) > 1 else 0)
        sizes = [self.evaluated.tensor(branch).shape[along] for branch in branches]
        yield from zip(branches, torch.split(relevance, sizes, dim=along), strict=True)

    def _summands(self, relevance: torch.Tensor) -> Iterator[tuple[fx.Node, torch.Tensor]]:
        branches = [part for part in self.node.args if isinstance(part, fx.Node)]
        values = [self.evaluated.tensor(branch) for branch in branches]
        if any(value.shape != relevance.shape for value in values):
            raise UnsupportedMethodError(f"operation '{self.node.name}' adds values of different shapes")
        # A sum is a linear layer of weight 1 that sees the branches side by side.
        operation = Operation(
            apply=lambda stacked, weight: (stacked * weight).sum(dim=0),
            weight=relevance.new_ones(()),
            bias=relevance.new_zeros(()),
        )
        shares = redistribute(self.rules.convolution, operation, torch.stack(values), relevance)
        yield from zip(branches, shares, strict=True)

    def _operation(self, what: Kind, source: fx.Node) -> Operation:
        module = self._module()
        if what is Kind.POOL:
            return Operation(
                apply=lambda x, weight: self.evaluated.again(self.node, source, x) * weight,
                weight=self.evaluated.tensor(source).new_ones(()),
                bias=self.evaluated.tensor(source).new_zeros(()),
            )
        if module is None:
            return self._function(source)
        if isinstance(module, nn.Linear):
            return Operation(apply=F.linear, weight=module.weight, bias=_or_zero(module.bias, module.weight))
        if hasattr(module, "running_var"):
            return _norm(module, self.evaluated.tensor(source).ndim)
        return _convolution(module)

    def _function(self, source: fx.Node) -> Operation:
        """Return a layer whose weight is a value of the graph, as a blur's is."""
        values = [self.evaluated.values[part] if isinstance(part, fx.Node) else part for part in self.node.args]
        named = {
            key: self.evaluated.values[part] if isinstance(part, fx.Node) else part
            for key, part in self.node.kwargs.items()
        }
        if self.node.args[0] is not source or len(values) < 2 or not isinstance(values[1], torch.Tensor):  # noqa: PLR2004
            raise UnsupportedMethodError(f"relevance has no rule for the form of operation '{self.node.name}'")
        bias = named.pop("bias", None) if len(values) == 2 else values[2]  # noqa: PLR2004 - input, weight, bias
        function: Any = self.node.target
        rest = values[3:]
        return Operation(
            apply=lambda x, weight: function(x, weight, None, *rest, **named),
            weight=values[1],
            bias=_beside_places(bias, values[1]),
        )


def _convolution(module: Any) -> Operation:
    # `_conv_forward` is the module's own forward pass with another weight; it knows the padding mode.
    return Operation(
        apply=lambda x, weight: module._conv_forward(x, weight, None),  # noqa: SLF001 - see above
        weight=module.weight,
        bias=_beside_places(module.bias, module.weight),
    )


def _norm(module: Any, axes: int) -> Operation:
    """Return a batch norm that could not be folded: a factor and an offset per channel."""
    shape = (1, -1, *[1] * (axes - 2))
    scale = (module.running_var + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight
    bias = -module.running_mean * scale
    if module.bias is not None:
        bias = bias + module.bias
    return Operation(apply=torch.mul, weight=scale.reshape(shape), bias=bias.reshape(shape))


def _or_zero(bias: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
    return weight.new_zeros(()) if bias is None else bias


def _beside_places(bias: Any, weight: torch.Tensor) -> torch.Tensor:
    """Return a convolution's bias so that it broadcasts over places."""
    return weight.new_zeros(()) if bias is None else bias.reshape(-1, *[1] * (weight.ndim - 2))
