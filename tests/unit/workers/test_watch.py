from __future__ import annotations

from dataclasses import dataclass, field

from kombu.exceptions import OperationalError

from workers.watch import Idleness


@dataclass
class Worker:
    """A worker and its broker, as the watchdog sees them."""

    now: float = 100.0
    waiting: int = 0
    begun: int = 0
    busy: bool = False
    broker_is_up: bool = True
    idleness: Idleness = field(init=False)

    def __post_init__(self) -> None:
        self.idleness = Idleness(
            calls=self.calls, begun=lambda: self.begun, busy=lambda: self.busy, clock=lambda: self.now
        )

    def calls(self) -> int:
        if not self.broker_is_up:
            raise OperationalError
        return self.waiting

    def after(self, seconds: float) -> float:
        self.now += seconds
        return self.idleness.look()


def test_calls_that_wait_in_front_of_an_idle_worker_are_timed() -> None:
    worker = Worker(waiting=3)
    assert worker.idleness.look() == 0
    assert worker.after(5) == 5
    assert worker.after(30) == 35


def test_a_worker_without_calls_is_not_idle() -> None:
    worker = Worker()
    worker.idleness.look()
    assert worker.after(1000) == 0


def test_a_worker_that_begins_a_call_is_timed_anew() -> None:
    worker = Worker(waiting=3)
    worker.idleness.look()
    worker.after(25)
    worker.begun += 1
    assert worker.after(5) == 0
    assert worker.after(5) == 0
    assert worker.after(5) == 5


def test_a_worker_that_is_at_work_or_loads_its_models_is_not_idle() -> None:
    worker = Worker(waiting=3, busy=True)
    worker.idleness.look()
    assert worker.after(600) == 0
    worker.busy = False
    assert worker.after(5) == 0
    assert worker.after(5) == 5


def test_a_broker_that_is_away_is_no_fault_of_the_worker() -> None:
    worker = Worker(waiting=3)
    worker.idleness.look()
    worker.broker_is_up = False
    assert worker.after(60) == 0
    worker.broker_is_up = True
    assert worker.after(1) == 0
    assert worker.after(1) == 1
