"""Forward and backward passes: one that all methods of one input share, and many in batches that fit into memory."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn

from service.errors import ModelError, UnsupportedMethodError
from workers.explainers.batching import out_of_memory
from workers.explainers.copies import State, differentiable, gradient_copy, safe_dtype, weights_state
from workers.explainers.evidence import evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from workers.interfaces import Classifier

log = logging.getLogger(__name__)
T = TypeVar("T")

LARGEST = {"cpu": 8, "cuda": 64}
"""Inputs in one forward and backward pass; more only leaves a CPU's cache."""


@dataclass(kw_only=True, eq=False)
class SharedPass:
    """One forward pass of the network as it is, in float32; each gradient is computed when it is first asked for."""

    network: ref[nn.Module]
    batch: ref[torch.Tensor]
    version: int
    layer: str
    state: State
    leaf: torch.Tensor
    logits: torch.Tensor
    """(1, labels), with its graph."""
    activation: torch.Tensor
    """Output of the layer, (1, channels, ...), with its graph."""
    _at_layer: dict[int, torch.Tensor] = field(default_factory=dict)
    _at_input: dict[int, torch.Tensor] = field(default_factory=dict)

    def is_of(self, batch: torch.Tensor, layer: str, state: State) -> bool:
        """Tell whether this is the pass of that very batch, unwritten since, by the same weights."""
        written = batch._version != self.version  # noqa: SLF001 - torch has no other word for it
        return self.batch() is batch and not written and self.layer == layer and self.state == state

    def at_layer(self, label: int) -> torch.Tensor:
        """Return the gradient of a label's logit by the layer's output, of the latter's shape."""
        if label not in self._at_layer:
            self._at_layer[label] = self._gradient(label, self.activation)
        return self._at_layer[label]

    def at_input(self, label: int) -> torch.Tensor:
        """Return the gradient of a label's logit by the input, of the input's shape."""
        if label not in self._at_input:
            self._at_input[label] = self._gradient(label, self.leaf)
        return self._at_input[label]

    def _gradient(self, label: int, where: torch.Tensor) -> torch.Tensor:
        # A caller may have switched gradients off, and taking one logit out is an operation too.
        with torch.enable_grad():
            (found,) = torch.autograd.grad(self.logits[0, label], where, retain_graph=True)
        return found


_LAST: WeakKeyDictionary[nn.Module, SharedPass] = WeakKeyDictionary()


def shared_pass(classifier: Classifier, batch: torch.Tensor, layer: str = "") -> SharedPass:
    """Return the forward pass of this very batch, the last one again when nothing has changed since.

    Args:
        classifier: the model.
        batch: one input, float32 (1, channels, ...).
        layer: its output is kept; empty for the card's `weights.cam_layer`.

    Raises:
        UnsupportedMethodError: the network gives no gradients, or nothing at that layer, or there is no memory.
        ModelError: there is no such layer.
    """
    network = differentiable(classifier)
    layer = layer or classifier.card.weights.cam_layer
    state = weights_state(network)
    last = _LAST.get(network)
    if last is not None and last.is_of(batch, layer, state):
        return last
    # What was kept goes first: two graphs at a time would be twice the memory.
    _LAST.pop(network, None)
    made = _forward(classifier, network, batch, layer, state)
    _LAST[network] = made
    return made


def forget(network: nn.Module) -> None:
    """Drop what is kept of the last forward pass."""
    _LAST.pop(network, None)


def _forgetting(owner: ref[nn.Module]) -> Callable[[ref[torch.Tensor]], None]:
    """Return what drops the pass of a batch that is gone: its graph is large."""

    def gone(batch: ref[torch.Tensor]) -> None:
        network = owner()
        if network is not None and (last := _LAST.get(network)) is not None and last.batch is batch:
            forget(network)

    return gone


def _forward(classifier: Classifier, network: nn.Module, batch: torch.Tensor, layer: str, state: State) -> SharedPass:
    try:
        with torch.enable_grad(), _output(classifier, network, layer) as kept:
            leaf = batch.detach().clone().requires_grad_()
            logits = evidence(classifier.card, network(leaf))
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        kept = []
        refused = True
    else:
        refused = False
    if refused:
        raise UnsupportedMethodError("there is not enough memory for a forward pass that keeps what a gradient needs")
    if len(kept) != 1 or not isinstance(kept[0], torch.Tensor) or not kept[0].requires_grad:
        raise UnsupportedMethodError(f"layer '{layer}' of model '{classifier.card.name}' shows no features")
    return SharedPass(
        network=ref(network),
        batch=ref(batch, _forgetting(ref(network))),
        version=batch._version,  # noqa: SLF001 - see `is_of`
        layer=layer,
        state=state,
        leaf=leaf,
        logits=logits,
        activation=kept[0],
    )


@contextmanager
def _output(classifier: Classifier, network: nn.Module, name: str) -> Iterator[list[torch.Tensor]]:
    """Keep the output of a layer during one forward pass; the hook comes off whatever happens."""
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        raise ModelError(f"model '{classifier.card.name}' has no layer '{name}'") from None
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        yield kept
    finally:
        handle.remove()


class Gradients:
    """Gradients of many inputs at once, by the fastest copy of the network that is safe, in the memory there is.

    When memory runs out the batch is halved; when one input does not fit into the accelerator, the rest runs on the
    CPU; when that is impossible too, the method is refused and the other methods go on.

    Args:
        classifier: the model.
        shape: of one input, (channels, ...).
        precision: `auto`, `float32` or `bfloat16`.

    Raises:
        UnsupportedMethodError: the network gives no gradients.
    """

    def __init__(self, classifier: Classifier, shape: Sequence[int], precision: str) -> None:
        self._network = differentiable(classifier)
        self._card = classifier.card
        self._device = classifier.device
        self._size = LARGEST.get(self._device.type, LARGEST["cpu"])
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(precision) or safe_dtype(
            self._network, tuple(shape), self._device
        )
        self.count = 0

    @property
    def precision(self) -> str:
        """What it computes in, for the record."""
        return str(self.dtype).removeprefix("torch.")

    def exact_logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits in float32, float64 (count, labels) on the CPU, without gradients."""
        return self._logits(inputs, torch.float32)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits likewise, in the precision of the gradients."""
        return self._logits(inputs, self.dtype)

    def _logits(self, inputs: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        network = gradient_copy(self._network, dtype, self._device)

        def forward(part: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                return evidence(self._card, network(part.to(self._device)).double()).cpu()

        return torch.cat([answer.clone() for _, answer in self._batches(inputs, forward)])

    def __call__(
        self, inputs: torch.Tensor, labels: Sequence[int]
    ) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yield, batch by batch: which inputs, logits float32 (labels, count), gradients float32 (labels, count, ...).

        All on the CPU; the labels are those asked for, in their order.

        Raises:
            UnsupportedMethodError: there is no memory for a single input.
        """
        for where, (logits, gradients) in self._batches(inputs, lambda part: self._backward(part, labels)):
            self.count += where.stop - where.start
            yield where, logits, gradients

    def _backward(self, part: torch.Tensor, labels: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        network = gradient_copy(self._network, self.dtype, self._device)
        with torch.enable_grad():
            leaf = part.detach().to(self._device, copy=True).requires_grad_()
            logits = evidence(self._card, network(leaf))[:, list(labels)]
            found = [
                torch.autograd.grad(logits[:, column].sum(), leaf, retain_graph=column + 1 < len(labels))[0]
                for column in range(len(labels))
            ]
        return logits.detach().float().cpu().T, torch.stack(found).float().cpu()

    def _batches(self, inputs: torch.Tensor, run: Callable[[torch.Tensor], T]) -> Iterator[tuple[slice, T]]:
        at = 0
        while at < len(inputs):
            end = min(at + self._size, len(inputs))
            answer: T | None = None
            try:
                answer = run(inputs[at:end])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # Outside the handler: the error's frames hold the tensors that did not fit.
            if answer is None:
                self._retreat()
                continue
            yield slice(at, end), answer
            at = end

    def _retreat(self) -> None:
        forget(self._network)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if self._size > 1:
            self._size //= 2
            log.info("out of memory: gradients of %d inputs at a time from here on", self._size)
        elif self._device.type != "cpu":
            self._device, self._size, self.dtype = torch.device("cpu"), LARGEST["cpu"], torch.float32
            log.warning("out of memory on the accelerator: the rest of this explanation runs on the CPU")
        else:
            raise UnsupportedMethodError("there is not enough memory for a single backward pass")
