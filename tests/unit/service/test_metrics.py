from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from retention_house import House

from dicom_nodes.status import CANNOT_UNDERSTAND, DOES_NOT_MATCH_SOP_CLASS, OUT_OF_RESOURCES
from service.metrics import LedgerCollector, ListenerMetrics
from service.records import JobState

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Books


def jobs(registry: CollectorRegistry) -> dict[str, float | None]:
    return {state: registry.get_sample_value("pellucid_jobs", {"state": state}) for state in JobState}


def test_every_state_of_jobs_is_told_so_that_its_first_job_is_a_rise(books: Books, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(LedgerCollector(books.reports))
    assert jobs(registry) == dict.fromkeys(JobState, 0.0)
    house = House(tmp_path, books)
    house.receive()
    house.make_job()
    assert jobs(registry) == {**dict.fromkeys(JobState, 0.0), JobState.QUEUED: 1.0}


def test_a_job_given_up_after_its_worker_died_counts_as_failed(books: Books, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(LedgerCollector(books.reports))
    house = House(tmp_path, books)
    house.receive()
    name = house.make_job()
    assert books.work.claim(name, lease_s=30, maximum_attempts=1) is not None
    house.clock.now += 60
    assert books.work.claim(name, lease_s=30, maximum_attempts=1) is None
    assert jobs(registry)[JobState.FAILED] == 1.0


def test_refusals_are_told_before_the_first_one() -> None:
    registry = CollectorRegistry()
    ListenerMetrics(registry)
    for status in (OUT_OF_RESOURCES, DOES_NOT_MATCH_SOP_CLASS, CANNOT_UNDERSTAND):
        labels = {"status": f"0x{status:04X}"}
        assert registry.get_sample_value("pellucid_instances_refused_total", labels) == 0.0


def test_what_was_set_aside_counts_until_it_is_purged(books: Books, tmp_path: Path) -> None:
    house = House(tmp_path, books)
    house.receive()
    house.receive(content=b"other")
    assert books.reports.backlog().set_aside == 1
    house.finish(house.make_job())
    house.deliver()
    house.days_pass(11)
    assert house.keeper.purge().instances == 2
    assert books.reports.backlog().set_aside == 0
