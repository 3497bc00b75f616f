"""What work, time and memory allow: a dear method never costs a cheap one its result, nor the job its end.

Work is counted, not clocked. A busy machine takes longer over a job, and must write the same bytes all the same: so
what is left out follows from the model's arithmetic alone. The clock only stops what would otherwise never end.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch.utils.flop_counter import FlopCounterMode

from service.errors import UnsupportedMethodError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from workers.interfaces import Classifier

log = logging.getLogger(__name__)

REFERENCE = 100e9
"""Multiply-adds a second of the machine that `budget_s` is meant for: one core that has bfloat16, or four without."""
UNKNOWN = 80e3
"""Multiply-adds for each place of the input where a network cannot be counted (ONNX): ResNet-50's."""

_COUNTED: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], float]] = WeakKeyDictionary()


class Budget:
    """What is left of the work that an input may take, in seconds of a machine that does `REFERENCE`.

    Args:
        budget_s: the work, in those seconds.
        brake_s: wall-clock seconds after which nothing more is begun; what that left out depends on the machine.
        pass_s: the work of one forward pass of one input, in those seconds; see `forward_s`.
        now: tells the time, in seconds.
    """

    def __init__(
        self, budget_s: float, brake_s: float, pass_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget_s, self.brake_s = budget_s, brake_s
        self._pass_s, self._now = pass_s, now
        self._spent_s = 0.0
        self._begun = now()
        self._braked = False

    def allows(self, passes: int) -> bool:
        """Tell whether so many forward passes still fit into the work; none always do."""
        return passes == 0 or self._spent_s + passes * self._pass_s <= self.budget_s

    def spend(self, passes: int) -> None:
        """Note forward passes as done."""
        self._spent_s += passes * self._pass_s

    @property
    def braked(self) -> bool:
        """True for good once the clock has run out."""
        if not self._braked and self._now() - self._begun > self.brake_s:
            self._braked = True
            log.warning("explaining took more than %g s: what is left of it is left out", self.brake_s)
        return self._braked


def forward_s(classifier: Classifier, batch: torch.Tensor) -> float:
    """Return the work of one forward pass of one input, in seconds of a machine that does `REFERENCE`.

    The network's multiply-adds are counted, once per network and shape; the answer is the same on every machine.
    """
    shape = tuple(batch.shape[1:])
    network = classifier.network
    if network is None:
        return UNKNOWN * prod(shape[1:]) / REFERENCE
    counted = _COUNTED.setdefault(network, {})
    if shape not in counted:
        counted[shape] = _multiply_adds(network, batch) or UNKNOWN * prod(shape[1:])
    return counted[shape] / REFERENCE


def _multiply_adds(network: nn.Module, batch: torch.Tensor) -> float:
    """Count those of convolutions, products and attention; 0 where a network has none, or cannot be watched."""
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(batch[:1])
    except Exception as error:  # noqa: BLE001 - a stranger's program may raise anything when it is watched
        log.info("the operations of a network cannot be counted (%s)", type(error).__name__)
        return 0.0
    return float(counter.get_total_flops()) / 2


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn running out of memory, on the GPU or off it, into a refusal of the method that did."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        _release()
        raise UnsupportedMethodError("it needs more memory than this machine has") from error
    except RuntimeError as error:
        # torch tells a failed allocation on the CPU by its text alone.
        if "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        _release()
        raise UnsupportedMethodError("it needs more memory than this machine has") from error


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
