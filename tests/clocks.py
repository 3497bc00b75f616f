"""Clocks for tests whose outcome must not depend on how busy the machine is."""

from __future__ import annotations


class SlowClock:
    """A clock on which so many seconds pass between two looks."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.time = seconds, 0.0

    def __call__(self) -> float:
        self.time += self.seconds
        return self.time
