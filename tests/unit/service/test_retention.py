from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from retention_house import House

from service.audit.chain import write_place
from service.audit.verify import verify
from service.errors import StoreError
from service.records import JobState
from service.retention import DAY_S, Purge

if TYPE_CHECKING:
    from pathlib import Path

    from bucket import Bucket
    from conftest import Books


NOTHING = Purge()


@pytest.fixture
def house(tmp_path: Path, books: Books) -> House:
    return House(tmp_path / "state", books)


def test_nothing_goes_before_its_time(house: House) -> None:
    source = house.receive()
    result = house.finish(house.make_job())
    house.deliver()
    house.days_pass(9)
    assert house.keeper.purge() == NOTHING
    assert source.exists()
    assert result.exists()


def test_instances_and_results_go_after_their_days_each(house: House) -> None:
    source = house.receive()
    result = house.finish(house.make_job())
    house.deliver()
    house.days_pass(11)
    assert house.keeper.purge() == Purge(instances=1, bytes=6)
    assert not source.exists()
    assert result.exists()
    house.days_pass(20)
    assert house.keeper.purge() == Purge(results=1, bytes=6)
    assert not result.exists()
    assert house.keeper.purge() == NOTHING


def test_a_dry_run_says_the_same_and_deletes_nothing(house: House) -> None:
    source = house.receive()
    result = house.finish(house.make_job())
    house.deliver()
    house.days_pass(31)
    assert house.keeper.look() == Purge(instances=1, results=1, bytes=12)
    assert source.exists()
    assert result.exists()
    assert house.keeper.purge() == Purge(instances=1, results=1, bytes=12)


def test_what_lies_in_a_bucket_goes_and_stays_by_the_same_rules(tmp_path: Path, books: Books, bucket: Bucket) -> None:
    variables = {name.removeprefix("PELLUCID__"): value for name, value in bucket.variables().items()}
    house = House(tmp_path / "state", books, **variables)
    house.receive()
    house.finish(house.make_job())
    house.days_pass(31)
    assert house.keeper.purge() == Purge(instances=1, bytes=0, held=1)
    assert len(bucket.objects) == 2  # the instance is so young that it may have come again
    house.deliver()
    house.days_pass(31)
    bucket.age(2 * DAY_S)
    bucket.refusal = (503, "SlowDown")
    for _ in range(2):
        house.keeper._outbox._storage._known_until = 0.0
        with pytest.raises(StoreError):
            house.keeper.purge()
    bucket.refusal = None
    assert house.keeper.look() == Purge(results=1, bytes=6)
    assert house.keeper.purge() == Purge(results=1, bytes=6)
    assert [key.split("/")[1] for key in bucket.objects] == ["spool"]
    assert house.spool.set_orphans_aside(house.books.arrivals.recorded_keys) == 1
    bucket.age(11 * DAY_S)
    assert house.keeper.look().orphans == 1
    assert house.keeper.purge().orphans == 1
    assert bucket.objects == {}


@pytest.mark.parametrize("state", ["pending", "rejected"])
def test_what_is_not_delivered_stays_for_years(house: House, state: str) -> None:
    house.receive()
    result = house.finish(house.make_job())
    if state == "rejected":
        (delivery,) = house.books.deliveries.claim("pacs", lease_s=60)
        house.books.deliveries.rejected(delivery, reason="0xC000")
    house.days_pass(3650)
    assert house.keeper.look().held == 1
    done = house.keeper.purge()
    assert (done.results, done.held) == (0, 1)
    assert result.exists()
    if state == "pending":
        house.deliver()
        house.days_pass(31)
        assert house.keeper.purge().results == 1


@pytest.mark.parametrize("running", [False, True])
def test_an_unfinished_job_keeps_its_inputs(house: House, running: bool) -> None:
    source = house.receive()
    job = house.make_job()
    if running:
        house.claim(job)
    house.days_pass(3650)
    assert house.keeper.purge() == NOTHING
    assert source.exists()


def test_an_instance_that_nobody_looked_at_stays(house: House) -> None:
    source = house.receive()
    house.days_pass(3650)
    assert house.keeper.purge() == NOTHING
    assert source.exists()


def test_a_job_that_ended_late_keeps_its_inputs_as_long_again(house: House) -> None:
    source = house.receive()
    job = house.make_job()
    house.days_pass(20)
    house.finish(job)
    house.deliver()
    assert house.keeper.purge() == NOTHING
    house.days_pass(11)
    assert house.keeper.purge().instances == 1
    assert not source.exists()


def test_a_study_that_is_still_arriving_keeps_all_of_it(house: House) -> None:
    first = house.receive()
    house.finish(house.make_job())
    house.deliver()
    house.days_pass(11)
    house.receive("1.2.3.5")
    assert house.keeper.purge() == NOTHING
    assert first.exists()


def test_an_instance_that_comes_again_is_kept_anew_and_analysed_no_second_time(house: House) -> None:
    house.receive()
    house.finish(house.make_job())
    house.deliver()
    house.days_pass(11)
    assert house.keeper.purge().instances == 1
    again = house.receive()
    assert again.exists()
    assert house.books.arrivals.unassigned() == []
    house.days_pass(9)
    assert house.keeper.purge() == NOTHING
    assert again.exists()
    house.days_pass(2)
    assert house.keeper.purge().instances == 1
    assert not again.exists()


def test_a_study_still_names_what_is_deleted_without_a_key(house: House) -> None:
    house.receive()
    house.finish(house.make_job())
    house.deliver()
    house.days_pass(11)
    house.keeper.purge()
    house.receive("1.2.3.5")
    instances = house.books.arrivals.instances_of_study("1.2.3", "PELLUCID")
    assert [bool(instance.key) for instance in instances] == [False, True]


def test_a_job_whose_images_are_deleted_is_tried_again_when_they_came_again(house: House) -> None:
    house.receive()
    name = house.make_job()
    claim = house.books.work.claim(name, lease_s=30, maximum_attempts=3)
    assert claim is not None
    house.books.work.finish(claim, [], [], state=JobState.REFUSED)
    house.days_pass(11)
    assert house.keeper.purge().instances == 1
    with pytest.raises(ValueError, match="send them again"):
        house.books.work.retry(name)
    house.receive()
    assert house.books.work.retry(name)


def test_what_was_set_aside_goes_too(house: House) -> None:
    house.receive()
    aside = house.receive(content=b"other")
    house.finish(house.make_job())
    house.deliver()
    house.days_pass(11)
    assert house.keeper.purge().instances == 2
    assert not aside.exists()


def test_zero_days_keep_for_ever(tmp_path: Path, books: Books) -> None:
    zero = {f"RETENTION__{name}_DAYS": "0" for name in ("INSTANCES", "RESULTS", "AUDIT")}
    house = House(tmp_path / "state", books, **zero)
    source = house.receive()
    house.finish(house.make_job())
    house.deliver()
    house.days_pass(36500)
    assert house.keeper.purge() == NOTHING
    assert source.exists()


def test_a_file_in_the_outbox_that_no_row_names_goes_after_a_day(house: House) -> None:
    left = house.folder / "outbox" / house.outbox.keep("f" * 32, b"left by a worker that died")
    assert house.keeper.purge() == NOTHING
    two_days_ago = time.time() - 2 * DAY_S
    os.utime(left, (two_days_ago, two_days_ago))
    assert house.keeper.purge().orphans == 1
    assert not left.exists()


def test_old_days_of_the_audit_log_go_and_the_rest_stays_verifiable(house: House) -> None:
    for _ in range(5):
        house.trail.alert("10.0.0.1", "unknown AE title")
        path = house.log.segments()[-1]
        os.utime(path, (house.clock.now, house.clock.now))
        house.days_pass(50)
    assert len(house.log.segments()) == 5
    assert house.keeper.look().audit_segments == 3
    assert house.keeper.purge().audit_segments == 3
    assert verify(house.log).intact
    assert [path.name for path in house.log.segments()] == ["000004.log", "000005.log", "000006.log"]


def test_a_damaged_day_of_the_audit_log_stays_and_the_purge_says_so(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        house.trail.alert("10.0.0.1", "unknown AE title")
        path = house.log.segments()[-1]
        if path.stem == "000001":
            path.write_bytes(b"garbage\n")
        os.utime(path, (house.clock.now, house.clock.now))
        house.days_pass(200)
    assert house.keeper.purge().audit_segments == 0
    assert "audit segment 000001.log is damaged and stays" in caplog.text
    assert len(house.log.segments()) == 2


def test_the_newest_day_of_the_audit_log_stays_however_old_it_is(house: House) -> None:
    house.trail.alert("10.0.0.1", "unknown AE title")
    (path,) = house.log.segments()
    os.utime(path, (house.clock.now, house.clock.now))
    house.days_pass(3650)
    assert house.keeper.look().audit_segments == 0
    assert house.keeper.purge() == NOTHING
    assert path.exists()


def test_no_day_of_the_audit_log_goes_before_that_is_written_down(house: House) -> None:
    for _ in range(2):
        house.trail.alert("10.0.0.1", "unknown AE title")
        path = house.log.segments()[-1]
        os.utime(path, (house.clock.now, house.clock.now))
        house.days_pass(200)
    (house.log.folder / "lock").unlink()
    (house.log.folder / "lock").mkdir()
    with pytest.raises(IsADirectoryError):
        house.keeper.purge()
    assert len(house.log.segments()) == 2
    assert verify(house.log).intact


def test_audit_records_that_syslog_has_not_had_stay(tmp_path: Path, books: Books) -> None:
    house = House(tmp_path / "state", books, AUDIT__SYSLOG_HOST="collector")
    for _ in range(4):
        house.trail.alert("10.0.0.1", "unknown AE title")
        path = house.log.segments()[-1]
        os.utime(path, (house.clock.now, house.clock.now))
        house.days_pass(200)
    assert house.keeper.purge().audit_segments == 0
    places = [place for _, place in house.log.records()]
    write_place(house.log.folder / "forwarded", places[1])
    assert house.keeper.purge().audit_segments == 1
    assert verify(house.log).intact


def test_each_purge_is_in_the_audit_trail(house: House) -> None:
    house.receive()
    house.finish(house.make_job())
    house.deliver()
    house.days_pass(11)
    house.keeper.purge()
    assert [record.kind for record, _ in house.log.records()] == ["deleted"]
