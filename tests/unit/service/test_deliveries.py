from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from jobs import LEASE, new_job, outbox_object

from service.records import DeliveryState, JobState

if TYPE_CHECKING:
    from conftest import Books

    from service.records import Delivery


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


def test_each_destination_of_an_object_is_settled_by_itself(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    claim = books.work.claim("j1", **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object()], ["@PACS", "@OTHER"])
    (delivery,) = books.deliveries.claim("@PACS", lease_s=60)
    books.deliveries.delivered(delivery)
    books.clock.now += 3600
    assert books.deliveries.due_destinations() == ["@OTHER"]


def test_an_answer_is_for_what_still_waits_for_it(books: Books) -> None:
    books.arrive("1")
    books.work.assign([new_job()], [])
    claim = books.work.claim("j1", **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object()], ["@PACS"])
    books.deliveries.sent(*books.deliveries.claim("@PACS", lease_s=60))
    (delivery,) = books.deliveries.claim("@PACS", lease_s=60, state=DeliveryState.SENT)
    books.deliveries.asked([delivery], transaction_uid="2.25.7", again_after_s=60)
    assert len(books.deliveries.of_transaction("2.25.7")) == 1
    books.deliveries.postpone([delivery], reason="the PACS has lost it", first_s=0, longest_s=0)
    assert books.deliveries.of_transaction("2.25.7") == []
    # A request on its way meanwhile is about an object that is to be sent again: it puts nothing off.
    books.deliveries.asked([delivery], transaction_uid="2.25.8", again_after_s=600)
    assert len(books.deliveries.claim("@PACS", lease_s=60)) == 1


def two_claims(books: Books) -> list[Delivery]:
    """One object, claimed by a slow sender and, when that one's lease has run out, by another."""
    books.arrive("1")
    books.work.assign([new_job()], [])
    claim = books.work.claim("j1", **LEASE)
    assert claim
    books.work.finish(claim, [outbox_object()], ["@PACS"])
    found = books.deliveries.claim("@PACS", lease_s=60)
    books.clock.now += 61
    return found + books.deliveries.claim("@PACS", lease_s=60)


def test_a_sender_that_was_overtaken_takes_nothing_back(books: Books) -> None:
    slow, quick = two_claims(books)
    pauses = {"reason": "no answer", "first_s": 1, "longest_s": 1}
    for answer in (
        lambda: books.deliveries.postpone([slow], **pauses),
        lambda: books.deliveries.hold([slow], **pauses),
        lambda: books.deliveries.rejected(slow, reason="0xA900"),
        lambda: books.deliveries.renew([slow], lease_s=600),
    ):
        answer()
        # The other one is still at it, for as long as it was given.
        assert books.deliveries.due_destinations() == []
    books.clock.now += 61
    assert books.deliveries.due_destinations() == ["@PACS"]
    books.deliveries.delivered(quick)
    books.deliveries.postpone([slow], **pauses)
    books.clock.now += 61
    assert books.deliveries.due_destinations() == []
    assert books.reports.jobs()[0].delivered == 1


def test_what_the_peer_took_is_delivered_whoever_sent_it(books: Books) -> None:
    slow, quick = two_claims(books)
    books.deliveries.delivered(slow)
    books.deliveries.postpone([quick], reason="no answer", first_s=1, longest_s=1)
    assert books.reports.jobs()[0].delivered == 1
    books.clock.now += 61
    assert books.deliveries.due_destinations() == []


def test_a_lease_that_is_renewed_outlasts_a_long_transfer_and_no_pause(books: Books) -> None:
    _, delivery = two_claims(books)
    for _ in range(10):
        books.clock.now += 50
        books.deliveries.renew([delivery], lease_s=60)
        assert books.deliveries.due_destinations() == []
    books.deliveries.postpone([delivery], reason="busy", first_s=1, longest_s=1)
    books.deliveries.renew([delivery], lease_s=60)
    books.clock.now += 2
    assert books.deliveries.due_destinations() == ["@PACS"]
