"""Copies of a network that gradient and relevance methods may do with as they please, and the shared forward pass.

Everything here is kept per network by weak reference, and made anew when the network's weights have changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import fx, nn

from service.errors import UnsupportedMethodError
from workers.models.folding import fast_dtype, fold_batch_norm, inference_copy

if TYPE_CHECKING:
    from workers.interfaces import Classifier
    from workers.models.folding import InferenceCopy

PRECISIONS = ("auto", "float32", "bfloat16")
FIDELITY = 0.98
"""Least rank correlation of a fast copy's gradient with the exact one, on the probe, for it to be used."""
PROBES = 4

State = tuple[object, ...]


@dataclass(kw_only=True)
class _Copies:
    state: State
    gradient: dict[tuple[torch.dtype, torch.device], InferenceCopy] = field(default_factory=dict)
    graph: dict[torch.device, fx.GraphModule] = field(default_factory=dict)
    fast: dict[tuple[int, ...], torch.dtype] = field(default_factory=dict)


_COPIES: WeakKeyDictionary[nn.Module, _Copies] = WeakKeyDictionary()


def differentiable(classifier: Classifier) -> nn.Module:
    """Return the classifier's network.

    Raises:
        UnsupportedMethodError: its runtime gives no gradients.
    """
    if classifier.network is None:
        raise UnsupportedMethodError(f"model '{classifier.card.name}' runs where there are no gradients")
    return classifier.network


def weights_state(network: nn.Module) -> State:
    """Return what changes whenever weights change or move, even those that were set behind autograd's back."""
    tensors = [tensor.detach() for tensor in chain(network.parameters(), network.buffers())]
    floating = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    # The first value goes beside the sum: a sum alone does not notice when weights are shuffled.
    content = [part for tensor in floating for part in (tensor.float().sum(), tensor.flatten()[0].float())]
    sums = torch.stack(content).cpu().numpy().tobytes() if content else b""
    return sums, tuple((tensor.data_ptr(), tensor.device) for tensor in tensors)


def gradient_copy(network: nn.Module, dtype: torch.dtype, device: torch.device) -> InferenceCopy:
    """Return a copy for forward and backward passes: batch norm folded, channels last, in `dtype`, on `device`."""
    copies = _copies(network).gradient
    if (dtype, device) not in copies:
        copies[dtype, device] = inference_copy(network, dtype).to(device)
    return copies[dtype, device]


def graph_copy(classifier: Classifier, device: torch.device) -> fx.GraphModule:
    """Return a copy as a graph of its operations, float32, batch norm folded where a layer feeds it, on `device`.

    Raises:
        UnsupportedMethodError: the network gives no gradients, or what it does depends on its input.
    """
    network = differentiable(classifier)
    copies = _copies(network).graph
    if device not in copies:
        folded = fold_batch_norm(network)
        if not isinstance(folded, fx.GraphModule):
            raise UnsupportedMethodError(f"the operations of model '{classifier.card.name}' cannot be followed")
        copies[device] = folded.to(device)
    return copies[device]


def safe_dtype(network: nn.Module, shape: tuple[int, ...], device: torch.device) -> torch.dtype:
    """Return the fastest precision whose gradients rank places as float32's do, on a fixed probe of this shape.

    The probe is the same in every process, so that the answer never depends on which image came first.

    Args:
        network: the model's.
        shape: of one input, (channels, rows, columns) or (channels, slices, rows, columns).
        device: where it runs.
    """
    fast = fast_dtype(device)
    if fast is not torch.bfloat16:
        # Half overflows in a backward pass; it would need a scaled loss.
        return torch.float32
    chosen = _copies(network).fast
    if shape not in chosen:
        probe = _probe(shape).to(device)
        exact = _mean_gradient(gradient_copy(network, torch.float32, device), probe)
        try:
            near = _mean_gradient(gradient_copy(network, fast, device), probe)
        except NotImplementedError:
            # Average pooling of volumes, for one, does not exist in bfloat16 on every device.
            chosen[shape] = torch.float32
        else:
            chosen[shape] = fast if rank_correlation(exact, near) >= FIDELITY else torch.float32
    return chosen[shape]


def rank_correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return Spearman's correlation of two maps of equal shape, ties in order of place; NaN when one is constant."""
    if not (one.isfinite().all() and other.isfinite().all()):
        return float("nan")
    ranks = [values.detach().cpu().flatten().argsort().argsort().double().numpy() for values in (one, other)]
    if float(one.max()) == float(one.min()) or float(other.max()) == float(other.min()):
        return float("nan")
    return float(np.corrcoef(np.stack(ranks))[0, 1])


def _copies(network: nn.Module) -> _Copies:
    state = weights_state(network)
    kept = _COPIES.get(network)
    if kept is None or kept.state != state:
        kept = _COPIES[network] = _Copies(state=state)
    return kept


def _probe(shape: tuple[int, ...]) -> torch.Tensor:
    """Return clouds with grain, standardised, as films are: `PROBES` of them that differ in their grain."""
    generator = torch.Generator().manual_seed(0)
    space = shape[1:]
    coarse = torch.randn(1, shape[0], *(max(1, side // 16) for side in space), generator=generator)
    mode = "bilinear" if len(space) == 2 else "trilinear"  # noqa: PLR2004 - rows and columns
    clouds = nn.functional.interpolate(coarse, size=space, mode=mode)
    return clouds + 0.2 * torch.randn(PROBES, *shape, generator=generator)


def _mean_gradient(network: nn.Module, probe: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        leaf = probe.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(leaf).sum(), leaf)
    return gradient.float().mean(dim=0)
