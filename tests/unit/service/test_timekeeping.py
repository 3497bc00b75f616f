"""A clock that is set back or forth, by an hour or ten years."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from service.intake import Intake
from service.ledger.creation import NewJob
from service.ledger.schema import deliveries
from service.ledger.timekeeping import Reach, Steps, Timekeeping
from service.records import DeliveryState, OutboxObject
from tests.unit.service.conftest import make_instance
from tests.unit.service.test_intake import pipeline

if TYPE_CHECKING:
    from tests.unit.service.conftest import Books

HOUR, TEN_YEARS = 3600.0, 10 * 365.25 * 86_400
JUMPS = (HOUR, -HOUR, TEN_YEARS, -TEN_YEARS)
REACH = Reach(job_lease_s=30, delivery_lease_s=60, delivery_pause_s=300, confirmation_s=60, association_s=30)


@pytest.fixture(autouse=True)
def _today(books: Books) -> None:
    """Far enough from 1970 to go back ten years."""
    books.clock.now = 1.8e9


class Clocks:
    """The one that can be set, and the one that cannot."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.steady = 0.0
        self.steps = Steps(books.clock, lambda: self.steady)

    def go(self, seconds: float) -> None:
        self.steady += seconds
        self.books.clock.now += seconds

    def set(self, by: float) -> None:
        self.books.clock.now += by


def intake(books: Books, clocks: Clocks) -> Intake:
    timekeeping = Timekeeping(books.engine, books.clock)

    def was_set() -> bool:
        found = clocks.steps.happened()
        if found:
            timekeeping.begin_anew(association_s=30)
        return found

    return Intake(
        arrivals=books.arrivals,
        work=books.work,
        pipelines=[pipeline("study")],
        wake=lambda _name, _priority: None,
        quiet_period_s=10,
        clock_was_set=was_set,
    )


def test_only_a_clock_that_is_set_makes_a_step() -> None:
    now, steady = [1000.0], [5.0]
    steps = Steps(lambda: now[0], lambda: steady[0])
    assert not steps.happened()
    now[0] += 60
    steady[0] += 60.5
    assert not steps.happened()
    now[0] += HOUR
    assert steps.happened()
    assert not steps.happened()
    now[0] -= HOUR
    assert steps.happened()


@pytest.mark.parametrize("jump", JUMPS)
def test_a_study_that_is_still_arriving_is_not_completed_by_the_clock(books: Books, jump: float) -> None:
    clocks = Clocks(books)
    runner = intake(books, clocks)
    books.arrive("1", association="open")
    clocks.go(5)
    assert runner.run_once() == 0
    clocks.set(jump)
    assert runner.run_once() == 0
    # The association is open still, and says so again only later.
    clocks.go(15)
    assert runner.run_once() == 0
    books.arrive("2", association="open")
    books.arrivals.close_association("open")
    clocks.go(9)
    assert runner.run_once() == 0
    clocks.go(2)
    assert runner.run_once() == 1
    (report,) = books.reports.jobs()
    assert report.job.sop_instance_uids == ("1", "2")


def job_in_hand(books: Books) -> None:
    books.arrive("1.1")
    new = NewJob(
        id="j" * 32, study_instance_uid="1.2.3", pipeline="p", pipeline_version="1", model_sha256="m",
        calling_ae="PACS", called_ae="PELLUCID", priority="routine", sop_instance_uids=("1.1",),
    )  # fmt: skip
    books.work.assign([new], [make_instance("1.1")])


def object_to_deliver(books: Books) -> None:
    job_in_hand(books)
    claim = books.work.claim("j" * 32, lease_s=30, maximum_attempts=3)
    assert claim
    made = OutboxObject(
        sop_instance_uid="1.9", sop_class_uid="1.2", study_instance_uid="1.2.3", series_instance_uid="1.2.3.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1", job_id="j" * 32, kind="sc", key="k", sha256="s", size=1,
    )  # fmt: skip
    books.work.finish(claim, [made], ["@PACS"])


@pytest.mark.parametrize("jump", JUMPS)
def test_the_job_of_a_dead_worker_is_called_again_within_one_lease_whatever_the_clock_did(
    books: Books, jump: float
) -> None:
    job_in_hand(books)
    assert books.work.claim("j" * 32, lease_s=30, maximum_attempts=3)
    books.clock.now += jump
    timekeeping = Timekeeping(books.engine, books.clock)
    timekeeping.pull_in(REACH)
    books.clock.now += 31
    assert books.work.forgotten(patience_s=20) == [("j" * 32, "routine")]
    assert books.work.claim("j" * 32, lease_s=30, maximum_attempts=3)
    assert timekeeping.pull_in(REACH) == 0


@pytest.mark.parametrize("jump", JUMPS)
def test_a_delivery_is_tried_again_within_its_longest_pause_whatever_the_clock_did(books: Books, jump: float) -> None:
    object_to_deliver(books)
    batch = books.deliveries.claim("@PACS", lease_s=60)
    books.deliveries.postpone(batch, reason="away", first_s=300, longest_s=300)
    books.clock.now += jump
    Timekeeping(books.engine, books.clock).pull_in(REACH)
    books.clock.now += 301
    assert books.deliveries.due_destinations() == ["@PACS"]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_confirmation_is_asked_for_again_soon_whatever_the_clock_did(books: Books, jump: float) -> None:
    object_to_deliver(books)
    (delivery,) = books.deliveries.claim("@PACS", lease_s=60)
    books.deliveries.sent(delivery)
    books.clock.now += 600
    batch = books.deliveries.claim("@PACS", lease_s=60, state=DeliveryState.SENT)
    books.deliveries.asked(batch, transaction_uid="1.5", again_after_s=600)
    timekeeping = Timekeeping(books.engine, books.clock)
    assert timekeeping.pull_in(REACH) == 0
    books.clock.now += jump
    timekeeping.pull_in(REACH)
    books.clock.now += 1
    due = books.deliveries.due_destinations(DeliveryState.SENT)
    assert due == ["@PACS"]


def test_what_lies_in_reach_is_left_alone(books: Books) -> None:
    job_in_hand(books)
    assert books.work.claim("j" * 32, lease_s=30, maximum_attempts=3)
    assert Timekeeping(books.engine, books.clock).pull_in(REACH) == 0


def test_a_backlog_of_eight_hours_is_drained_within_the_longest_pause_each_object_sent_once(books: Books) -> None:
    job_in_hand(books)
    claim = books.work.claim("j" * 32, lease_s=30, maximum_attempts=3)
    assert claim
    made = [
        OutboxObject(
            sop_instance_uid=f"1.9.{number}", sop_class_uid="1.2", study_instance_uid="1.2.3",
            series_instance_uid="1.2.3.1", transfer_syntax_uid="1.2.840.10008.1.2.1", job_id="j" * 32, kind="sc",
            key=f"k{number}", sha256="s", size=1,
        )
        for number in range(200)
    ]  # fmt: skip
    books.work.finish(claim, made, ["@PACS"])
    tries = 0
    away_until = books.clock() + 8 * HOUR
    while books.clock() < away_until:
        while batch := books.deliveries.claim("@PACS", lease_s=60, limit=100):
            tries += len(batch)
            books.deliveries.postpone(batch, reason="away", first_s=2, longest_s=300)
        books.clock.now += 60
    sent: list[str] = []
    for _ in range(6):
        while batch := books.deliveries.claim("@PACS", lease_s=60, limit=100):
            for delivery in batch:
                sent.append(delivery.object.sop_instance_uid)
                books.deliveries.delivered(delivery)
        books.clock.now += 60
    assert sorted(sent) == sorted(entry.sop_instance_uid for entry in made)
    # Not hammered: about one try per object and five minutes, after the first few.
    assert tries / len(made) < 8 * 60 / 2.5 + 10
    with books.engine.connect() as connection:
        assert set(connection.execute(select(deliveries.c.state)).scalars()) == {DeliveryState.DELIVERED}
