from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from jobs import LEASE, new_job, outbox_object

from service.ledger.work import LeaseLostError
from service.records import JobState

if TYPE_CHECKING:
    from conftest import Books

    from service.ledger.creation import NewJob


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


def test_a_refused_job_that_is_done_again_replaces_its_note(books: Books) -> None:
    for name, uids in {"j1": ("1",), "j2": ("1", "2")}.items():
        books.arrive(uids[-1])
        assert complete(books, new_job(name, *uids))
        if name == "j1":
            finished(books, "j1", "9")
    claim = books.work.claim("j2", **LEASE)
    assert claim
    assert [entry.sop_instance_uid for entry in claim.replaced] == ["9"]
    books.work.finish(claim, [outbox_object("j2", "8")], [], state=JobState.REFUSED, reason="not a chest")
    assert books.work.retry("j2")
    again = books.work.claim("j2", **LEASE)
    assert again
    assert [entry.sop_instance_uid for entry in again.replaced] == ["8"]


def test_a_refused_job_that_another_model_does_again_replaces_its_note(books: Books) -> None:
    books.arrive("1")
    assert complete(books, new_job("old", "1"))
    claim = books.work.claim("old", **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object("old", "8")], [], state=JobState.REFUSED, reason="not a chest")
    assert books.work.retry("old")
    claim = books.work.claim("old", **LEASE)
    assert claim
    books.work.replace(claim, new_job("new", "1"), reason="made for another model")
    again = books.work.claim("new", **LEASE)
    assert again
    assert [entry.sop_instance_uid for entry in again.replaced] == ["8"]
    assert {report.job.id: report.job.reason for report in books.reports.jobs()}["old"] == "made for another model"


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


def test_a_late_instance_supersedes_the_job_that_came_back_not_the_newest_one(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job("old")], [])
    books.clock.now += 1
    for held, wanted in (("old", "new"), ("new", "old")):
        claim = books.work.claim(held, **LEASE)
        assert claim
        books.work.replace(claim, new_job(wanted), reason="made for another model")
    books.arrive("2")
    assert complete(books, new_job("late", "1", "2"))
    assert {report.job.id: report.job.supersedes for report in books.reports.jobs()}["late"] == "old"
