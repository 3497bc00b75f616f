from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from jobs import LEASE, new_job, outbox_object

from service.ledger.arrivals import Outcome
from service.ledger.work import LeaseLostError
from service.records import JobState

if TYPE_CHECKING:
    from conftest import Books


def test_a_repeated_instance_is_stored_once(books: Books) -> None:
    assert books.arrive("1") == Outcome.STORED
    assert books.arrive("1", key="second file") == Outcome.REPEATED
    assert [instance.key for instance in books.arrivals.unassigned()] == ["key-1"]


def test_the_same_uid_with_other_content_is_set_aside_and_never_processed(books: Books) -> None:
    books.arrive("1")
    assert books.arrive("1", sha256="c" * 64, key="other") == Outcome.SET_ASIDE
    assert [row.key for row in books.arrivals.set_aside()] == ["other"]
    assert [instance.key for instance in books.arrivals.unassigned()] == ["key-1"]


def test_an_instance_sent_to_two_of_our_titles_arrives_at_both(books: Books) -> None:
    books.arrive("1")
    assert books.arrive("1", called_ae="OTHER") == Outcome.REPEATED
    assert [instance.called_ae for instance in books.arrivals.unassigned()] == ["PELLUCID", "OTHER"]


def test_what_we_made_is_stored_and_never_unassigned(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    claim = books.work.claim("j1", **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object(uid="9")], [])
    books.arrive("9")
    assert [instance.sop_instance_uid for instance in books.arrivals.unassigned()] == ["1"]


def test_a_study_is_complete_only_when_quiet_and_without_open_association(books: Books) -> None:
    books.arrive("1")
    books.clock.now += 11
    assert books.arrivals.complete_studies(quiet_period_s=10) == []
    books.arrivals.close_association("a")
    assert [study for study, _, _ in books.arrivals.complete_studies(quiet_period_s=10)] == ["1.2.3"]
    assert books.arrivals.complete_studies(quiet_period_s=12) == []


def test_a_study_to_which_something_came_meanwhile_is_not_complete_after_all(books: Books) -> None:
    books.arrive("1")
    books.arrivals.close_association("a")
    books.clock.now += 11
    ((study, called_ae, last_arrival),) = books.arrivals.complete_studies(quiet_period_s=10)
    books.arrive("2", association="b")
    assert books.work.complete_study(study, called_ae, last_arrival, [new_job()]) == []
    assert books.reports.jobs() == []
    books.arrivals.close_association("b")
    books.clock.now += 11
    assert len(books.arrivals.complete_studies(quiet_period_s=10)) == 1


def test_a_study_is_complete_for_each_of_our_titles_by_itself(books: Books) -> None:
    for title in ("PELLUCID", "OTHER"):
        books.arrive("1", called_ae=title)
    books.arrivals.close_association("a")
    books.clock.now += 11
    study, called_ae, last_arrival = books.arrivals.complete_studies(quiet_period_s=10)[0]
    books.work.complete_study(study, called_ae, last_arrival, [])
    ((_, left, _),) = books.arrivals.complete_studies(quiet_period_s=10)
    assert {left, called_ae} == {"PELLUCID", "OTHER"}


def test_an_association_of_a_dead_listener_does_not_hold_a_study_for_ever(books: Books) -> None:
    books.arrive("1")
    books.clock.now += 31
    assert len(books.arrivals.complete_studies(quiet_period_s=10)) == 1


def test_one_job_has_one_holder(books: Books) -> None:
    books.arrive("1")
    assert len(books.work.assign([new_job()], [])) == 1
    assert books.work.assign([new_job()], []) == []
    assert books.work.claim("j1", **LEASE)
    assert books.work.claim("j1", **LEASE) is None


def test_a_worker_that_lost_its_lease_writes_nothing(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    first = books.work.claim("j1", **LEASE)
    books.clock.now += 11
    second = books.work.claim("j1", **LEASE)
    assert first
    assert second
    assert not books.work.renew(first, lease_s=10)
    with pytest.raises(LeaseLostError):
        books.work.finish(first, [outbox_object()], ["@PACS"])
    assert books.deliveries.due_destinations() == []
    books.work.finish(second, [outbox_object()], ["@PACS"])
    assert books.deliveries.due_destinations() == ["@PACS"]


def test_a_poisoned_job_is_set_aside_after_three_attempts(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    for _ in range(3):
        assert books.work.claim("j1", **LEASE)
        books.clock.now += 11
    assert books.work.claim("j1", **LEASE) is None
    (report,) = books.reports.jobs()
    assert report.job.state is JobState.FAILED
    assert "3 attempts" in report.job.reason
    assert books.work.retry("j1") == "routine"
    assert books.work.claim("j1", **LEASE)


def test_a_call_that_comes_twice_does_not_fail_a_job_in_its_last_attempt(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    for _ in range(2):
        assert books.work.claim("j1", **LEASE)
        books.clock.now += 11
    last = books.work.claim("j1", **LEASE)
    assert last
    assert books.work.claim("j1", **LEASE) is None
    books.work.finish(last, [], [])
    assert books.work.claim("j1", **LEASE) is None
    (report,) = books.reports.jobs()
    assert report.job.state is JobState.DONE


def test_a_job_given_back_in_its_last_attempt_has_failed_with_the_reason(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    for wanted in (JobState.QUEUED, JobState.QUEUED, JobState.FAILED):
        claim = books.work.claim("j1", **LEASE)
        assert claim
        assert books.work.give_back(claim, reason="no such layer", maximum_attempts=3) is wanted
    (report,) = books.reports.jobs()
    assert report.job.state is JobState.FAILED
    assert report.job.reason == "no such layer"


def test_forgotten_jobs_are_called_again_with_growing_patience(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    books.work.wake("j1")
    assert books.work.forgotten(patience_s=20) == []
    books.clock.now += 21
    assert books.work.forgotten(patience_s=20) == [("j1", "routine")]
    books.work.wake("j1")
    books.clock.now += 21
    assert books.work.forgotten(patience_s=20) == []
    books.clock.now += 21
    assert books.work.forgotten(patience_s=20) == [("j1", "routine")]


def test_jobs_that_are_borne_with_stand_before_no_lost_call(books: Books) -> None:
    books.arrive("1")
    books.arrive("2")
    books.work.assign([new_job("patient"), new_job("lost", "2")], [])
    for _ in range(6):
        books.work.wake("patient")
    books.clock.now += 1
    books.work.wake("lost")
    books.clock.now += 21
    assert books.work.forgotten(patience_s=20, limit=1) == [("lost", "routine")]


def test_a_job_whose_holder_died_is_called_again_at_once_and_once(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    for _ in range(5):
        books.work.wake("j1")
    assert books.work.claim("j1", **LEASE)
    assert books.work.forgotten(patience_s=20) == []
    books.clock.now += 10
    assert books.work.forgotten(patience_s=20) == [("j1", "routine")]
    books.clock.now += 1
    books.work.wake("j1")
    assert books.work.forgotten(patience_s=20) == []


def test_a_job_that_ended_two_holders_lets_others_go_first(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    books.work.wake("j1")
    assert books.work.claim("j1", **LEASE)
    books.clock.now += 11
    books.work.wake("j1")
    assert books.work.claim("j1", **LEASE)
    books.clock.now += 11
    assert books.work.forgotten(patience_s=20) == []
    books.clock.now += 19
    assert books.work.forgotten(patience_s=20) == [("j1", "routine")]


def test_an_answered_call_makes_the_sweep_impatient_again(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    for _ in range(6):
        books.work.wake("j1")
    assert books.work.claim("j1", **LEASE)
    books.clock.now += 11
    books.work.wake("j1")
    assert books.work.forgotten(patience_s=20) == []
    books.clock.now += 21
    assert books.work.forgotten(patience_s=20) == [("j1", "routine")]


def test_what_is_not_the_jobs_fault_uses_up_no_attempt(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    for _ in range(5):
        claim = books.work.claim("j1", **LEASE)
        assert claim
        assert books.work.give_back(claim, reason="full", maximum_attempts=3, counts=False) is JobState.QUEUED
    claim = books.work.claim("j1", **LEASE)
    assert claim
    assert claim.job.attempts == 1
