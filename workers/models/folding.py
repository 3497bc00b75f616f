"""Makes an inference copy of a network: batch norm folded, channels last, bfloat16 or half where the machine has it.

A batch norm in evaluation mode is an affine map per channel, so it can be multiplied into the convolution or linear
layer right before it (Jacob et al. 2017, arXiv:1712.05877, section 3.2). The copy answers as the network does, up to
rounding; the network itself, its hooks and its gradients stay as they were.
"""

from __future__ import annotations

import copy
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import fx, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NATIVE_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""In /proc/cpuinfo: Intel and AMD, then Arm. Without one of them bfloat16 is emulated, and slower than float32."""


class InferenceCopy(nn.Module):
    """A network that takes float32 and gives float32, and computes in the precision and layout it was given."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (batch, labels), of (batch, channels, rows, columns) or with slices before rows."""
        logits: torch.Tensor = self.network(_channels_last(x.to(self.dtype)))
        return logits.float()


def inference_copy(network: nn.Module, dtype: torch.dtype = torch.float32) -> InferenceCopy:
    """Return a folded copy of `network` in channels-last layout and in `dtype`, on the network's device.

    Args:
        network: an `nn.Module` whose output is logits; it is not changed.
        dtype: float32, bfloat16 or float16; see `fast_dtype`.
    """
    copied = fold_batch_norm(network).to(dtype)
    # Convolutions alone profit; their inputs and outputs then follow.
    for module in copied.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.weight.data = _channels_last(module.weight.data)
    return InferenceCopy(copied, dtype).eval()


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a float32 copy in evaluation mode whose batch norms are folded wherever a layer feeds one alone.

    A network that cannot be traced symbolically (its forward pass depends on its input, or it is TorchScript) is
    copied unfolded: slower, never wrong.
    """
    copied = copy.deepcopy(network).float().eval().requires_grad_(requires_grad=False)
    try:
        traced = fx.symbolic_trace(copied)
    except Exception as error:  # noqa: BLE001 - a stranger's forward pass may raise anything on a symbol
        log.info("a network of class %s stays unfolded (%s)", type(network).__name__, type(error).__name__)
        return copied
    _fold(traced)
    return traced


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the fastest precision that `device` computes natively, float32 when none is."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _NATIVE_BF16_FLAGS & cpu_flags() else torch.float32


@cache
def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return what the processor says it can do; nothing where it does not say."""
    try:
        content = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    flags = next((line for line in content.splitlines() if line.lower().startswith(("flags", "features"))), "")
    return frozenset(flags.split())


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return `x` with that layout's strides: of one channel `contiguous` leaves any, and outputs follow them."""
    if x.dim() == 4:  # noqa: PLR2004 - batch, channels, rows, columns
        return x.clone(memory_format=torch.channels_last)
    if x.dim() == 5:  # noqa: PLR2004 - batch, channels, slices, rows, columns
        return x.clone(memory_format=torch.channels_last_3d)
    return x


def _fold(traced: fx.GraphModule) -> None:
    modules = dict(traced.named_modules())
    calls: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    for node in list(traced.graph.nodes):
        before = _foldable(node, modules, calls)
        if before is None:
            continue
        layer = cast("nn.Conv2d | nn.Linear", modules[str(before.target)])
        _multiply_in(layer, cast("nn.BatchNorm2d", modules[str(node.target)]))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()


def _foldable(node: fx.Node, modules: Mapping[str, nn.Module], calls: Mapping[str, int]) -> fx.Node | None:
    """Return the layer before a batch norm when nothing else sees that layer's output, else None."""
    if node.op != "call_module" or not isinstance(modules[str(node.target)], _NORMS):
        return None
    before = node.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
        return None
    # A module that the network calls twice cannot take the norm of one of the calls.
    if calls[str(before.target)] != 1 or calls[str(node.target)] != 1:
        return None
    norm, layer = modules[str(node.target)], modules[str(before.target)]
    # Without running statistics a norm depends on the batch even in evaluation mode.
    has_statistics = norm.running_mean is not None and norm.running_var is not None
    return before if has_statistics and isinstance(layer, (*_CONVOLUTIONS, nn.Linear)) else None


def _multiply_in(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d) -> None:
    """Fold in float64, so that folding itself adds no rounding beyond that of the result."""
    scale = (_double(norm.running_var) + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * _double(norm.weight)
    shift = -_double(norm.running_mean) * scale
    if norm.affine:
        shift = shift + _double(norm.bias)
    if layer.bias is not None:
        shift = shift + scale * _double(layer.bias)
    weight = _double(layer.weight)
    weight = weight * scale.reshape((-1,) + (1,) * (weight.dim() - 1))
    layer.weight = nn.Parameter(weight.float(), requires_grad=False)
    layer.bias = nn.Parameter(shift.float(), requires_grad=False)


def _double(values: torch.Tensor | None) -> torch.Tensor:
    if values is None:  # `_foldable` lets no norm through that lacks them
        raise ValueError("a batch norm without statistics cannot be folded")
    return values.detach().double()
