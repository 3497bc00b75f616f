"""Answers many inputs at once, in the fastest precision that answers as the classifier does, in the memory there is."""

from __future__ import annotations

import copy
import hashlib
import logging
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from service.errors import UnsupportedMethodError
from workers.models.eight_bit import EightBitCopy, has_fast_bytes
from workers.models.folding import InferenceCopy, fast_dtype, inference_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from workers.interfaces import Classifier
    from workers.models.eight_bit import Scales

    Copy = InferenceCopy | EightBitCopy
    Forward = Callable[[torch.Tensor], torch.Tensor]
    Make = Callable[[int, int, torch.device], torch.Tensor]

log = logging.getLogger(__name__)
T = TypeVar("T")

LARGEST = {"cpu": 8, "cuda": 256}
"""Inputs in one forward pass. On a CPU more only leaves the cache."""
TOLERANCE = 0.02
"""A copy is safe when its logits are off by no more than this share of what hiding the image or half of it changes."""
ANOTHER = 0.1
"""A classifier whose logits are off its graph's by more than this share does more than its graph."""
LEAST_SWING = 1.0
"""Logits; keeps the tolerance sensible where hiding the image changes next to nothing."""
NOISE = 0.2
"""Most that 8-bit answers to half hidden images may scatter around the true ones, of what those scatter themselves: it
adds a twenty-fifth to the variance that every value is estimated against, and halves what an answer costs."""
MIXED = 8
"""Half hidden images by which that is tried."""
HALF = 0.5
PATCHES = 8
"""Of them along each side are shown or hidden."""


@dataclass(kw_only=True)
class _Copies:
    """Copies of one network by precision, and which of them is safe for the image that was explained last."""

    fingerprint: bytes
    """Of the weights that the copies were made of."""
    made: dict[torch.dtype, InferenceCopy] = field(default_factory=dict)
    in_bytes: EightBitCopy | None = None
    never_in_bytes: bool = False
    """No 8-bit copy can be made of this network."""
    image: bytes = b""
    safe: Copy | None = None
    scales: Scales = field(default_factory=dict)
    """Of the 8-bit copy, fitted to that image."""


_COPIES: WeakKeyDictionary[nn.Module, _Copies] = WeakKeyDictionary()


class Forwards:
    """Forward passes of one classifier, counted.

    When memory runs out the batch is halved; when a single input does not fit into the accelerator, the rest runs on
    the CPU; when that is impossible too, the method is refused and the other methods go on.

    Args:
        classifier: only its `logits` are needed; when it has a graph, a folded copy in 8-bit integers, bfloat16 (or
            half on CUDA without it) takes over, once it has answered `probes` as the classifier does.
        probes: inputs, float32 (few, channels, ...): the image, the image hidden altogether, and others between them.
    """

    def __init__(self, classifier: Classifier, probes: torch.Tensor) -> None:
        self._classifier = classifier
        self._device = classifier.device
        self._size = LARGEST.get(self._device.type, LARGEST["cpu"])
        self._forward: Forward = classifier.logits
        self.count = 0
        self.precision = "float32"
        self._in_bytes: EightBitCopy | None = None
        self._scales: Scales = {}
        self._guard(lambda: self._choose(probes))

    def __call__(self, count: int, make: Make) -> NDArray[np.float64]:
        """Return logits, float64 (count, labels).

        Args:
            count: how many inputs.
            make: returns the inputs from one index up to another one, on a device.

        Raises:
            UnsupportedMethodError: there is no memory for a single input.
        """
        found: list[NDArray[np.float64]] = []
        at = 0
        while at < count:
            end = min(at + self._size, count)
            answer = self._guard(partial(self._answer, make, at, end))
            if answer is None:
                continue
            found.append(answer.to("cpu", torch.float64).numpy())
            at = end
        self.count += count
        return np.concatenate(found)

    def _answer(self, make: Make, start: int, end: int) -> torch.Tensor:
        if self._in_bytes is not None:
            # Another image may have been asked about since the last answer.
            self._in_bytes.use(self._scales)
        return self._forward(make(start, end, self._device))

    def _guard(self, run: Callable[[], T]) -> T | None:
        """Run, or make do with less memory and return None."""
        try:
            return run()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Outside the handler: the error's frames hold the tensors that did not fit.
        self._retreat()
        return None

    def _choose(self, probes: torch.Tensor) -> None:
        network = self._classifier.network
        if network is None:
            return
        copies = _copies_for(self._classifier, network, probes)
        if copies.safe is not None:
            self._use(copies.safe)
        if copies.safe is copies.in_bytes:
            self._in_bytes, self._scales = copies.in_bytes, copies.scales

    def _use(self, inference: Copy) -> None:
        self._in_bytes = None
        self._forward = torch.inference_mode()(inference)
        self.precision = str(inference.dtype).removeprefix("torch.")

    def _retreat(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        network = self._classifier.network
        if self._size > 1:
            self._size //= 2
            log.info("out of memory: batches of %d from here on", self._size)
        elif self._device.type != "cpu" and network is not None:
            self._device = torch.device("cpu")
            self._size = LARGEST["cpu"]
            # What works there in bfloat16 was not tried, and memory is too short to try it now.
            self._use(inference_copy(_on_cpu(network), torch.float32))
            log.warning("out of memory on the accelerator: the rest of this explanation runs on the CPU")
        else:
            raise UnsupportedMethodError("there is not enough memory for a single forward pass")


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error says that memory ran out, on CUDA or on the CPU."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in words or "can't allocate memory" in words


def _copies_for(classifier: Classifier, network: nn.Module, probes: torch.Tensor) -> _Copies:
    """Return the copies with the fastest that is safe for this image; several methods in a row ask about the same."""
    fingerprint = _fingerprint(network)
    copies = _COPIES.get(network)
    if copies is None or copies.fingerprint != fingerprint:
        copies = _COPIES[network] = _Copies(fingerprint=fingerprint)
    image = hashlib.sha256(probes.cpu().numpy().tobytes()).digest()
    if copies.image != image:
        copies.safe = _fastest(classifier, network, probes, copies)
        copies.scales = copies.in_bytes.scales() if copies.in_bytes is not None else {}
        copies.image = image
    return copies


def _fastest(classifier: Classifier, network: nn.Module, probes: torch.Tensor, copies: _Copies) -> Copy | None:
    mixed = _half_hidden(probes[:1], probes[1:2])
    with torch.inference_mode():
        exact = network(probes).double()
    for dtype in dict.fromkeys((fast_dtype(classifier.device), torch.float32)):
        if dtype not in copies.made:
            copies.made[dtype] = inference_copy(network, dtype)
        safe = copies.made[dtype]
        try:
            with torch.inference_mode():
                found = safe(torch.cat([probes, mixed])).double()
        except NotImplementedError:
            # Average pooling of volumes, for one, does not exist in bfloat16 on every device.
            log.info("a copy in %s cannot be computed on this machine", dtype)
            continue
        off, swing = _off(found, exact), _swing(found)
        # Then only the classifier answers. Written so that NaN is refused as well, here and below.
        if not _off(classifier.logits(probes).double(), exact) <= ANOTHER * swing:
            return None
        if off <= TOLERANCE * swing:
            native = classifier.device.type == "cpu" and has_fast_bytes()
            in_bytes = _in_bytes(network, probes, mixed, copies) if native else None
            return in_bytes if in_bytes is not None and _agrees(in_bytes, probes, mixed, exact, found) else safe
        log.info("a copy in %s is off by %.3g logits: not used", dtype, off)
    return None


def _off(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found[: len(exact)] - exact).abs().max())


def _swing(found: torch.Tensor) -> float:
    return max(float((found.amax(dim=0) - found.amin(dim=0)).max()), LEAST_SWING)


def _in_bytes(network: nn.Module, probes: torch.Tensor, mixed: torch.Tensor, copies: _Copies) -> EightBitCopy | None:
    """Return the copy in 8-bit integers with scales for this image, None when there can be none."""
    if copies.never_in_bytes:
        return None
    examples = torch.cat([probes, mixed[: MIXED // 2]])
    try:
        if copies.in_bytes is None:
            copies.in_bytes = EightBitCopy(network, examples)
        else:
            copies.in_bytes.calibrate(examples)
    except NotImplementedError as error:
        log.info("%s", error)
        copies.never_in_bytes = True
    return copies.in_bytes


def _agrees(
    in_bytes: EightBitCopy, probes: torch.Tensor, mixed: torch.Tensor, exact: torch.Tensor, safe: torch.Tensor
) -> bool:
    """Tell whether 8 bits answer as they should: on the probes, and on half hidden images they have not seen.

    Args:
        in_bytes: the copy.
        probes: as for `Forwards`.
        mixed: from `_half_hidden`; the first half has fitted the scales.
        exact: the network's answers to `probes`.
        safe: answers to `probes` and `mixed` by a copy that is exact enough.
    """
    with torch.inference_mode():
        found = in_bytes(torch.cat([probes, mixed[MIXED // 2 :]])).double()
    unseen = safe[-(MIXED - MIXED // 2) :]
    off = _off(found, exact)
    noise = float(((found[len(probes) :] - unseen).std(dim=0) / unseen.std(dim=0)).max())
    if off <= TOLERANCE * _swing(safe) and noise <= NOISE:
        return True
    log.info("a copy in 8-bit integers is off by %.3g logits, with noise of %.3g: not used", off, noise)
    return False


def _half_hidden(image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return images of which half the patches of a grid are hidden, each followed by its complement."""
    sides = [PATCHES] * (image.ndim - 2)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand((MIXED // 2, PATCHES ** len(sides)), generator=generator).argsort(dim=1)
    shown = (order < PATCHES ** len(sides) // 2).reshape(-1, 1, *sides)
    grids = torch.stack([shown, ~shown], dim=1).flatten(0, 1).float()
    return torch.where(F.interpolate(grids, size=image.shape[2:]).to(image.device) > HALF, image, hidden)


def _fingerprint(network: nn.Module) -> bytes:
    """Return what changes whenever weights change, even those that were set behind autograd's back."""
    tensors = [t.detach() for t in chain(network.parameters(), network.buffers()) if t.is_floating_point()]
    if not tensors:
        return b""
    sums = torch.stack([moment for t in tensors for moment in (t.double().sum(), t.double().square().sum())])
    content: bytes = sums.cpu().numpy().tobytes()
    return content


def _on_cpu(network: nn.Module) -> nn.Module:
    """Copy a network to the CPU without a second copy where memory is scarce."""
    elsewhere: dict[int, object] = {}
    for parameter in network.parameters():
        elsewhere[id(parameter)] = nn.Parameter(parameter.detach().cpu(), requires_grad=False)
    for buffer in network.buffers():
        elsewhere[id(buffer)] = buffer.detach().cpu()
    return copy.deepcopy(network, elsewhere)
