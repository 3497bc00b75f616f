"""Names the operations of a network's graph by what methods that follow them must know."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """What an operation does to relevance and to differences."""

    LINEAR = "linear layer"
    POOL = "mean over places"
    MAXIMUM = "largest of places"
    ACTIVATION = "activation"
    SUM = "sum of branches"
    CONCATENATION = "branches side by side"
    SHAPE = "same values elsewhere"
    PASS = "same values"  # noqa: S105 - what goes through unchanged
    OTHER = "other"


_LAYERS: Mapping[Kind, tuple[type[nn.Module], ...]] = {
    Kind.LINEAR: (
        nn.Linear,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.BatchNorm3d,
    ),
    Kind.POOL: (
        nn.AvgPool1d,
        nn.AvgPool2d,
        nn.AvgPool3d,
        nn.AdaptiveAvgPool1d,
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveAvgPool3d,
    ),
    Kind.MAXIMUM: (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    Kind.ACTIVATION: (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Hardswish),
    Kind.SHAPE: (nn.Flatten, nn.Unflatten, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    Kind.PASS: (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
}
_FUNCTIONS: Mapping[object, Kind] = {
    F.conv1d: Kind.LINEAR,
    F.conv2d: Kind.LINEAR,
    F.conv3d: Kind.LINEAR,
    F.linear: Kind.LINEAR,
    F.avg_pool1d: Kind.POOL,
    F.avg_pool2d: Kind.POOL,
    F.avg_pool3d: Kind.POOL,
    F.adaptive_avg_pool1d: Kind.POOL,
    F.adaptive_avg_pool2d: Kind.POOL,
    F.adaptive_avg_pool3d: Kind.POOL,
    torch.mean: Kind.POOL,
    F.max_pool1d: Kind.MAXIMUM,
    F.max_pool2d: Kind.MAXIMUM,
    F.max_pool3d: Kind.MAXIMUM,
    F.relu: Kind.ACTIVATION,
    torch.relu: Kind.ACTIVATION,
    F.leaky_relu: Kind.ACTIVATION,
    F.silu: Kind.ACTIVATION,
    F.gelu: Kind.ACTIVATION,
    operator.add: Kind.SUM,
    operator.iadd: Kind.SUM,
    torch.add: Kind.SUM,
    torch.cat: Kind.CONCATENATION,
    torch.concat: Kind.CONCATENATION,
    torch.flatten: Kind.SHAPE,
    torch.reshape: Kind.SHAPE,
    torch.permute: Kind.SHAPE,
    torch.squeeze: Kind.SHAPE,
    torch.unsqueeze: Kind.SHAPE,
    F.pad: Kind.SHAPE,
    F.dropout: Kind.PASS,
}
_METHODS: Mapping[str, Kind] = {
    "mean": Kind.POOL,
    "relu": Kind.ACTIVATION,
    "add": Kind.SUM,
    "flatten": Kind.SHAPE,
    "view": Kind.SHAPE,
    "reshape": Kind.SHAPE,
    "permute": Kind.SHAPE,
    "squeeze": Kind.SHAPE,
    "unsqueeze": Kind.SHAPE,
    "contiguous": Kind.PASS,
    "to": Kind.PASS,
    "float": Kind.PASS,
    "clone": Kind.PASS,
}


def kind(node: fx.Node, graph: fx.GraphModule) -> Kind:
    """Return what an operation is."""
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        # Exact types: a subclass may compute anything.
        return next((named for named, layers in _LAYERS.items() if type(module) in layers), Kind.OTHER)
    if node.op == "call_function":
        return _FUNCTIONS.get(node.target, Kind.OTHER)
    return _METHODS.get(str(node.target), Kind.OTHER) if node.op == "call_method" else Kind.OTHER


def described(node: fx.Node, graph: fx.GraphModule) -> str:
    """Return an operation in words, for a message."""
    if node.op == "call_module":
        return f"layer '{node.target}' ({type(graph.get_submodule(str(node.target))).__name__})"
    return f"operation '{node.name}'"


class Evaluated(fx.Interpreter):
    """Computes a graph and keeps every operation's value."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.graph_module = graph
        self.values: dict[fx.Node, object] = {}

    def run_node(self, n: fx.Node) -> object:
        """Compute one operation and keep what came out."""
        value: object = super().run_node(n)
        self.values[n] = value
        return value

    def tensor(self, node: fx.Node) -> torch.Tensor:
        """Return an operation's value.

        Raises:
            TypeError: it is no tensor.
        """
        value = self.values[node]
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"operation '{node.name}' gives no tensor")
        return value

    def again(self, node: fx.Node, source: fx.Node, value: torch.Tensor) -> torch.Tensor:
        """Compute one operation once more with `value` in place of what `source` gave."""

        def known(argument: fx.Node) -> Any:
            return value if argument is source else self.values[argument]

        arguments = fx.map_arg(node.args, known)
        keywords = fx.map_arg(node.kwargs, known)
        result: torch.Tensor = getattr(self, node.op)(node.target, arguments, keywords)
        return result
