from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.ledger.arrivals import Outcome
from service.ledger.creation import NewJob
from service.ledger.work import LeaseLostError
from service.records import JobState, OutboxObject

if TYPE_CHECKING:
    from conftest import Books

LEASE = {"lease_s": 10.0, "maximum_attempts": 3}


def new_job(name: str = "j1", *uids: str) -> NewJob:
    return NewJob(
        id=name,
        study_instance_uid="1.2.3",
        pipeline="p",
        pipeline_version="1",
        model_sha256="b" * 64,
        calling_ae="PACS",
        called_ae="PELLUCID",
        priority="routine",
        sop_instance_uids=uids or ("1",),
    )


def outbox_object(job: str = "j1", uid: str = "9", kind: str = "secondary-capture") -> OutboxObject:
    return OutboxObject(
        sop_instance_uid=uid,
        sop_class_uid="1",
        study_instance_uid="1.2.3",
        series_instance_uid="1",
        transfer_syntax_uid="1",
        job_id=job,
        kind=kind,
        key="k",
        sha256="s",
        size=1,
    )


def test_a_repeated_instance_is_stored_once(books: Books) -> None:
    assert books.arrive("1") == Outcome.STORED
    assert books.arrive("1") == Outcome.REPEATED
    assert len(books.arrivals.unassigned()) == 1


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


def test_deliveries_are_retried_for_ever_with_a_capped_pause(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    claim = books.work.claim("j1", **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object()], ["@PACS"])
    for _ in range(40):
        batch = books.deliveries.claim("@PACS", lease_s=60)
        assert len(batch) == 1
        assert books.deliveries.claim("@PACS", lease_s=60) == []
        books.deliveries.postpone(batch, reason="down", first_s=2, longest_s=300)
        assert books.deliveries.due_destinations() == []
        books.clock.now += 300
    assert books.reports.jobs()[0].delivery_reason == "down"
    books.deliveries.delivered(books.deliveries.claim("@PACS", lease_s=60)[0])
    assert books.reports.jobs()[0].delivered == 1


def test_a_destination_that_is_away_is_asked_once_a_pause_whatever_waits_for_it(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    claim = books.work.claim("j1", **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object(uid=str(number)) for number in range(20)], ["@PACS", "@OTHER"])
    asked = 0
    for _ in range(600):
        books.clock.now += 1
        batch = books.deliveries.claim("@PACS", lease_s=60, limit=5)
        asked += bool(batch)
        if batch:
            books.deliveries.hold(batch, reason="away", first_s=2, longest_s=64)
        assert books.deliveries.claim("@PACS", lease_s=60) == []
    assert 600 / 64 <= asked <= 30
    assert books.reports.jobs()[0].delivery_reason == "away"
    assert len(books.deliveries.claim("@OTHER", lease_s=60)) == 20


def test_a_rejected_object_waits_for_a_retry(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    claim = books.work.claim("j1", **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object()], ["@PACS"])
    books.deliveries.rejected(books.deliveries.claim("@PACS", lease_s=60)[0], reason="0xA900")
    assert books.deliveries.due_destinations() == []
    assert books.work.retry("j1") is None
    assert books.deliveries.due_destinations() == ["@PACS"]
    with pytest.raises(ValueError, match="none of its objects was rejected"):
        books.work.retry("j1")


def test_jobs_are_found_by_state_and_by_what_a_destination_does_not_have(books: Books) -> None:
    for name in ("a", "b", "c"):
        books.arrive(name)
        books.work.assign([new_job(name, name)], [])
    for name in ("a", "b"):
        claim = books.work.claim(name, **LEASE)
        assert claim
        books.work.finish(claim, [outbox_object(name, f"of-{name}")], ["@PACS"])
    for delivery in books.deliveries.claim("@PACS", lease_s=60):
        if delivery.object.job_id == "a":
            books.deliveries.delivered(delivery)

    def found(**chosen: object) -> set[str]:
        return {report.job.id for report in books.reports.jobs(**chosen)}

    assert found() == {"a", "b", "c"}
    assert found(states=[JobState.QUEUED, JobState.FAILED]) == {"c"}
    assert found(undelivered=True) == {"b"}


def test_a_destination_is_sent_only_the_kinds_it_can_show(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    claim = books.work.claim("j1", **LEASE)
    assert claim
    made = [outbox_object(uid="9", kind="text-report"), outbox_object(uid="8", kind="pdf-report")]
    books.work.finish(claim, made, ["@OLD", "@NEW"], kinds={"@OLD": {"text-report"}})
    assert [each.object.kind for each in books.deliveries.claim("@OLD", lease_s=60)] == ["text-report"]
    assert len(books.deliveries.claim("@NEW", lease_s=60)) == 2


def finished(books: Books, name: str, *uids: str) -> None:
    claim = books.work.claim(name, **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object(name, uid) for uid in uids], [])


def complete(books: Books, job: NewJob, *, quiet: float = 10) -> list[NewJob]:
    """The study's newest instance has arrived: close it with this job."""
    books.arrivals.close_association("a")
    books.clock.now += quiet + 1
    ((study, called_ae, last_arrival),) = books.arrivals.complete_studies(quiet_period_s=quiet)
    return books.work.complete_study(study, called_ae, last_arrival, [job])


def test_a_job_superseded_before_it_ran_passes_on_what_it_would_have_replaced(books: Books) -> None:
    for name, uids in {"j1": ("1",), "j2": ("1", "2"), "j3": ("1", "2", "3")}.items():
        books.arrive(uids[-1])
        assert complete(books, new_job(name, *uids))
        if name == "j1":
            finished(books, "j1", "9")
    assert books.work.claim("j2", **LEASE) is None
    claim = books.work.claim("j3", **LEASE)
    assert claim
    assert claim.job.supersedes == "j2"
    assert [entry.sop_instance_uid for entry in claim.replaced] == ["9"]


def test_a_job_of_another_version_passes_on_what_it_would_have_replaced(books: Books) -> None:
    for name, uids in {"j1": ("1",), "old": ("1", "2")}.items():
        books.arrive(uids[-1])
        assert complete(books, new_job(name, *uids))
        if name == "j1":
            finished(books, "j1", "9")
    claim = books.work.claim("old", **LEASE)
    assert claim
    books.work.replace(claim, new_job("new", "1", "2"), reason="made for another model")
    assert books.work.forgotten(patience_s=20) == [("new", "routine")]
    claim = books.work.claim("new", **LEASE)
    assert claim
    assert [entry.sop_instance_uid for entry in claim.replaced] == ["9"]


def test_a_job_comes_back_when_versions_go_forth_and_back(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job("old")], [])
    for held, wanted in (("old", "new"), ("new", "old")):
        claim = books.work.claim(held, **LEASE)
        assert claim
        books.work.replace(claim, new_job(wanted), reason="made for another model")
        with pytest.raises(LeaseLostError):
            books.work.replace(claim, new_job(wanted), reason="twice")
    assert {report.job.id: report.job.state for report in books.reports.jobs()} == {
        "old": JobState.QUEUED,
        "new": JobState.SUPERSEDED,
    }
