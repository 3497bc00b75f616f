"""Makes an inference copy whose convolutions compute with 8-bit integers, where the processor has such products (VNNI).

Weights get a scale per output channel, activations one per layer, taken from inputs that are like those to come
(Jacob et al. 2017, arXiv:1712.05877; Nagel et al. 2021, arXiv:2106.08295). A convolution takes the ReLU after it, and
the sum of a residual block, into itself, so that within the blocks nothing but bytes is moved. The first convolution,
the head and whatever is none of this stay in floating point.

It is made for answers that are many and alike: an image with regions hidden. Whether it is exact enough for them is
for its user to try; see `workers.explainers.batching`.
"""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx, nn
from torch.nn import functional as F

from workers.models.folding import cpu_flags, fast_dtype, fold_batch_norm

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

Scales = dict[str, tuple[float, int]]
"""Step and zero of each layer."""
_NATIVE_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""In /proc/cpuinfo. Without one of them 8-bit products are emulated, and slower than float32."""
_LARGEST_BYTE = 255
_FEWEST_CHANNELS = 8
"""Of a convolution's input. The first one sees one channel or three, and 8 bits of those are too few."""
_MOST_LEFT = 1
"""Convolutions that may stay as they are: with more of them, going to bytes and back costs what bytes save."""
_HEADROOM = 1.2
"""Scales reach further than the examples did by this factor: rounding a little coarser costs less than cutting off."""
_LEAST = 1e-12
"""Keeps scales of what is 0 throughout above 0."""
_RELUS = frozenset({F.relu, torch.relu, torch.relu_, F.relu_})
_SUMS = frozenset({operator.add, torch.add, operator.iadd})


@dataclass(kw_only=True, eq=False)
class _Scale:
    """How bytes stand for the values of one node: value = step * (byte - zero)."""

    shape: tuple[int, ...]
    signed: bool
    """Whether values may be below 0, told by the graph alone: what a copy answers never depends on earlier images."""
    step: float = 1.0
    zero: int = 0

    def fit(self, low: float, high: float) -> None:
        """Reach from `low` to `high`, and to 0."""
        low, high = min(low, 0.0) if self.signed else 0.0, max(high, 0.0)
        self.step = max(_HEADROOM * (high - low) / _LARGEST_BYTE, _LEAST)
        # Not 0: what a layer's weights were packed for tells only between 0 and something else.
        self.zero = max(1, round(-_HEADROOM * low / self.step)) if self.signed else 0


class EightBitCopy(nn.Module):
    """A network that takes float32 and gives float32, with 8-bit integers inside. It runs on the CPU alone."""

    dtype = torch.int8

    def __init__(self, network: nn.Module, examples: torch.Tensor) -> None:
        """Make the copy and calibrate it on `examples`, float32 (few, channels, rows, columns).

        Raises:
            NotImplementedError: this network cannot be computed with 8-bit integers.
        """
        super().__init__()
        folded = fold_batch_norm(network)
        if not isinstance(folded, fx.GraphModule):
            raise NotImplementedError("8-bit integers need a network that can be traced")
        _drop_idle(folded)
        parts = _find_parts(folded)
        left = sum(isinstance(module, nn.Conv2d) for module in folded.modules()) - len(parts)
        if not parts or left > _MOST_LEFT:
            raise NotImplementedError(f"8-bit integers would leave {left} convolutions of this network as they are")
        self._watched = copy.deepcopy(folded).to(_float())
        self._names = {n.name for part in parts for n in (part.source, part.end, part.other) if n is not None}
        seen = self._watch(examples)
        rectified = {part.end.name for part in parts if part.relu}
        self._scales = {name: _Scale(shape=found.shape, signed=name not in rectified) for name, found in seen.items()}
        self._fit(seen)
        try:
            self.network = _Rewriter(folded, parts, self._scales).rewritten()
            self(examples)
        except RuntimeError as error:
            raise NotImplementedError(f"8-bit integers cannot compute this network ({error})") from None

    def calibrate(self, examples: torch.Tensor) -> None:
        """Fit the scales of all layers to what `examples` make of them."""
        self._fit(self._watch(examples))

    def scales(self) -> Scales:
        """Return the scales of all layers as they are fitted now."""
        return {name: (scale.step, scale.zero) for name, scale in self._scales.items()}

    def use(self, scales: Scales) -> None:
        """Take scales from before: other examples may have been fitted since."""
        for name, (step, zero) in scales.items():
            self._scales[name].step, self._scales[name].zero = step, zero

    def _fit(self, seen: Mapping[str, _Extent]) -> None:
        for name, extent in seen.items():
            self._scales[name].fit(extent.low, extent.high)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (batch, labels), of (batch, channels, rows, columns)."""
        logits: torch.Tensor = self.network(x.clone(memory_format=torch.channels_last))
        return logits.float()

    def _watch(self, examples: torch.Tensor) -> dict[str, _Extent]:
        watcher = _Watcher(self._watched, self._names)
        with torch.inference_mode():
            watcher.run(examples.to(_float(), memory_format=torch.channels_last))
        return watcher.seen


@dataclass(kw_only=True)
class _Extent:
    shape: tuple[int, ...]
    low: float
    high: float


class _Watcher(fx.Interpreter):
    """Runs a graph and notes the extent of the values of some of its nodes."""

    def __init__(self, graph: fx.GraphModule, names: Collection[str]) -> None:
        super().__init__(graph)
        self.names = names
        self.seen: dict[str, _Extent] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n.name in self.names:
            low, high = value.aminmax()
            self.seen[n.name] = _Extent(shape=tuple(value.shape), low=float(low), high=float(high))
        return value


def has_fast_bytes() -> bool:
    """Tell whether this processor multiplies 8-bit integers natively, and torch can make use of it."""
    return bool(_NATIVE_FLAGS & cpu_flags()) and hasattr(torch.ops.onednn, "qconv2d_pointwise")


class _Convolution(nn.Module):
    """A convolution of bytes, with what comes after it: nothing, a ReLU, or a sum and a ReLU."""

    def __init__(self, part: _Part, scales_of: Mapping[str, _Scale]) -> None:
        super().__init__()
        layer = part.layer
        self._source, self._target = scales_of[part.source.name], scales_of[part.end.name]
        self._other = None if part.other is None else scales_of[part.other.name]
        self._after = "relu" if part.relu else "none"
        weight = layer.weight.detach()
        scales = (weight.abs().amax(dim=(1, 2, 3)) / 127).clamp_min(_LEAST)
        whole = (weight / scales[:, None, None, None]).round().to(torch.int8)
        self._shape = (list(layer.stride), list(cast("tuple[int, int]", layer.padding)), list(layer.dilation))
        self._groups = layer.groups
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._packed = torch.ops.onednn.qconv_prepack(
            whole, scales, 1.0, self._source.zero, *self._shape, self._groups, list(self._source.shape)
        )

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Return bytes; `other` is overwritten with them."""
        given = (x, self._source.step, self._source.zero, self._packed, self._scales, self._zeros)
        layout = (self._bias, *self._shape, self._groups, self._target.step, self._target.zero, torch.uint8)
        if other is None or self._other is None:
            alone: torch.Tensor = torch.ops.onednn.qconv2d_pointwise(*given, *layout, self._after, [], "")
            return alone
        scale = self._other
        summed: torch.Tensor = torch.ops.onednn.qconv2d_pointwise.binary(
            *given, other, *layout, scale.step, scale.zero, "sum", 1.0, self._after, [], ""
        )
        return summed


class _ToBytes(nn.Module):
    """Numbers to bytes."""

    def __init__(self, scale: _Scale) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return bytes in channels-last layout."""
        scaled = x.float().mul(1 / self.scale.step).add_(self.scale.zero).round_().clamp_(0, _LARGEST_BYTE)
        return scaled.to(torch.uint8, memory_format=torch.channels_last)


class _ToNumbers(nn.Module):
    """Bytes to numbers."""

    def __init__(self, scale: _Scale) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32."""
        return x.float().sub_(self.scale.zero).mul_(self.scale.step)


class _Left(nn.Module):
    """A convolution that stays in floating point, in the machine's fastest, as does what follows up to the bytes."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer).to(_float())
        # Of one channel any layout is "contiguous": a clone alone has the strides that the output then follows.
        self.layer.weight.data = self.layer.weight.data.clone(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return values in that precision."""
        values: torch.Tensor = self.layer(x.to(_float()))
        return values


def _float() -> torch.dtype:
    return fast_dtype(torch.device("cpu"))


@dataclass(kw_only=True)
class _Part:
    """A convolution of the graph with what it takes in: `end` is the node whose value comes out."""

    layer: nn.Conv2d
    source: fx.Node
    end: fx.Node
    other: fx.Node | None = None
    relu: bool = True


def _drop_idle(graph: fx.GraphModule) -> None:
    """Take out what does nothing in evaluation mode and would stand between a convolution and its ReLU."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), nn.Identity | nn.Dropout):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()


def _find_parts(graph: fx.GraphModule) -> list[_Part]:
    parts: dict[fx.Node, _Part] = {}
    for node in graph.graph.nodes:
        layer = _layer(graph, node)
        after = _only_user(node)
        if layer is None or after is None:
            continue
        source = cast("fx.Node", node.args[0])
        if _is_relu(graph, after):
            parts[after] = _Part(layer=layer, source=source, end=after)
            continue
        end = _only_user(after)
        other = next((entry for entry in after.args if isinstance(entry, fx.Node) and entry is not node), None)
        if not _is_sum(after) or end is None or other is None or not _is_relu(graph, end):
            continue
        if end in parts:
            # The other branch of this sum is taken in already: this one stands alone, as what is added to it.
            parts[node] = _Part(layer=layer, source=source, end=node, relu=False)
            parts[end].other = node
        else:
            parts[end] = _Part(layer=layer, source=source, end=end, other=other)
    return list(parts.values())


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _layer(graph: fx.GraphModule, node: fx.Node) -> nn.Conv2d | None:
    """Return the convolution that a node calls when bytes can compute it, else None."""
    layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    fits = (
        isinstance(layer, nn.Conv2d)
        and layer.in_channels >= _FEWEST_CHANNELS
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and isinstance(node.args[0], fx.Node)
    )
    return cast("nn.Conv2d", layer) if fits else None


def _is_relu(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(graph.get_submodule(str(node.target)), nn.ReLU)
    return node.op == "call_function" and node.target in _RELUS


def _is_sum(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in _SUMS and not node.kwargs


class _Rewriter:
    """Writes a graph anew whose parts compute with bytes, and the rest with numbers as before."""

    def __init__(self, graph: fx.GraphModule, parts: Iterable[_Part], scales: Mapping[str, _Scale]) -> None:
        self._old, self._new = graph, fx.Graph()
        self._parts = {part.end: part for part in parts}
        self._scales = scales
        self._root: dict[str, Any] = dict(graph.named_modules())
        self._numbers: dict[fx.Node, fx.Node] = {}
        self._bytes: dict[fx.Node, fx.Node] = {}
        self._spent: set[fx.Node] = set()

    def rewritten(self) -> fx.GraphModule:
        """Return the new graph.

        Raises:
            NotImplementedError: bytes are wanted after a sum was written over them.
        """
        for node in self._old.graph.nodes:
            if node.op == "get_attr":
                self._root[str(node.target)] = _attribute(self._old, str(node.target))
            if node in self._parts:
                self._write(self._parts[node])
            elif node.op in ("placeholder", "output"):
                self._as_numbers(node)
        for node in self._new.nodes:
            if node.op == "call_module" and isinstance(layer := self._root[str(node.target)], nn.Conv2d):
                self._root[str(node.target)] = _Left(layer)
        return fx.GraphModule(self._root, self._new)

    def _write(self, part: _Part) -> None:
        inputs = [self._as_bytes(part.source)]
        if part.other is not None:
            inputs.append(self._as_bytes(part.other))
            self._spent.add(part.other)
        self._bytes[part.end] = self._call(_Convolution(part, self._scales), *inputs)

    def _as_bytes(self, node: fx.Node) -> fx.Node:
        if node in self._spent:
            raise NotImplementedError("this network uses a value again after it was added to another one")
        if node not in self._bytes:
            self._bytes[node] = self._call(_ToBytes(self._scales[node.name]), self._as_numbers(node))
        return self._bytes[node]

    def _as_numbers(self, node: fx.Node) -> fx.Node:
        if node not in self._numbers:
            self._numbers[node] = (
                self._call(_ToNumbers(self._scales[node.name]), self._as_bytes(node))
                if node in self._bytes
                else self._new.node_copy(node, self._as_numbers)
            )
        return self._numbers[node]

    def _call(self, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        name = f"{type(module).__name__.strip('_')}{len(self._new.nodes)}"
        self._root[name] = module
        return self._new.call_module(name, inputs)


def _attribute(graph: fx.GraphModule, name: str) -> Any:
    *path, last = name.split(".")
    return getattr(graph.get_submodule(".".join(path)), last)
