"""What time and memory allow: a dear method never costs a cheap one its result, nor the job its end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from service.errors import UnsupportedMethodError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """What is left of the budget, and what a forward pass takes here and now."""

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self.forward_s = 0.0
        self._begun = time.monotonic()

    def learn(self, forwards: int, seconds: float) -> None:
        """Note that so many forward passes took so long; the fastest that was seen is what the next are held to.

        One slow pass on a busy machine must not cost every method that follows.
        """
        if forwards > 0:
            self.forward_s = min(self.forward_s or seconds, seconds / forwards)

    def allows(self, forwards: int) -> bool:
        """Tell whether so many forward passes still fit; none always do."""
        if forwards == 0:
            return True
        spent = time.monotonic() - self._begun
        return spent + forwards * self.forward_s <= self.budget_s


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
