from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from service.errors import NotEligibleError, OutOfSpaceError, SettingsError, UndecodableError
from service.health import MAXIMUM_CONNECTIONS, Endpoints, Health, serve_health
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.metrics import LedgerCollector, ListenerMetrics, SenderMetrics, WorkerMetrics, reason_class

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Books


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Trouble:
    error: Exception | None = None

    def __call__(self) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def endpoints(clock: Clock, trouble: Trouble) -> Iterator[Endpoints]:
    registry = CollectorRegistry()
    ListenerMetrics(registry).instances.labels("stored").inc(3)
    endpoints = Endpoints(Health({"disk": trouble}, clock=clock), registry, host="127.0.0.1", port=0)
    yield endpoints
    endpoints.stop()


def get(endpoints: Endpoints, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoints.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_healthy_process_is_live_and_ready(endpoints: Endpoints) -> None:
    assert get(endpoints, "/health/live")[0] == 200
    status, body = get(endpoints, "/health/ready")
    assert (status, json.loads(body)) == (200, {"ok": True, "wrong": {}})


def test_a_full_disk_makes_it_unready_and_says_why_but_it_lives(endpoints: Endpoints, trouble: Trouble) -> None:
    trouble.error = OutOfSpaceError("3 MB free")
    assert get(endpoints, "/health/live")[0] == 200
    status, body = get(endpoints, "/health/ready")
    assert (status, json.loads(body)["wrong"]) == (503, {"disk": "3 MB free"})


def test_an_unforeseen_error_is_named_and_not_quoted(endpoints: Endpoints, trouble: Trouble) -> None:
    trouble.error = RuntimeError("Mustermann^Erika")
    assert json.loads(get(endpoints, "/health/ready")[1])["wrong"] == {"disk": "RuntimeError"}


def test_a_loop_that_stands_still_is_not_alive(endpoints: Endpoints, clock: Clock) -> None:
    clock.now = 61.0
    assert get(endpoints, "/health/live")[0] == 503
    assert get(endpoints, "/health/ready")[0] == 503


def test_metrics_are_prometheus_text(endpoints: Endpoints) -> None:
    status, body = get(endpoints, "/metrics")
    assert status == 200
    assert 'pellucid_instances_received_total{outcome="stored"} 3.0' in body


def test_other_paths_do_not_exist(endpoints: Endpoints) -> None:
    assert get(endpoints, "/etc/passwd")[0] == 404


def test_a_silent_client_does_not_keep_others_waiting(endpoints: Endpoints) -> None:
    with socket.create_connection(("127.0.0.1", endpoints.port)) as silent:
        silent.sendall(b"GET /metr")
        assert get(endpoints, "/health/live")[0] == 200


def test_a_port_that_is_taken_is_a_setting_to_change(endpoints: Endpoints) -> None:
    with pytest.raises(SettingsError, match=r"\[http\]"):
        serve_health(Health({}), CollectorRegistry(), host="127.0.0.1", port=endpoints.port)


def test_port_0_serves_nothing() -> None:
    assert serve_health(Health({}), CollectorRegistry(), host="127.0.0.1", port=0) is None


def sample(registry: CollectorRegistry, metric: str, **labels: str) -> float | None:
    return registry.get_sample_value(metric, labels)


def test_the_ledger_tells_queue_and_outbox(books: Books) -> None:
    registry = CollectorRegistry()
    registry.register(LedgerCollector(books.reports))
    assert sample(registry, "pellucid_ledger_up") == 1.0
    assert sample(registry, "pellucid_queue_age_seconds") == 0.0
    assert sample(registry, "pellucid_processes", name="worker") == 0.0
    books.reports.announce("worker")
    books.arrive("1.2.3.4")
    books.arrive("1.2.3.4", sha256="b" * 64, key="other")
    assert sample(registry, "pellucid_processes", name="worker") == 1.0
    assert sample(registry, "pellucid_instances_set_aside") == 1.0


def test_a_ledger_that_is_away_is_said_and_nothing_else(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE set_aside")
    registry = CollectorRegistry()
    registry.register(LedgerCollector(Reports(engine)))
    assert sample(registry, "pellucid_ledger_up") == 0.0
    assert sample(registry, "pellucid_queue_age_seconds") is None
    engine.dispose()


def test_every_process_has_metrics_of_its_own_that_do_not_clash() -> None:
    registry = CollectorRegistry()
    ListenerMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        ListenerMetrics(registry)
    WorkerMetrics(CollectorRegistry())
    SenderMetrics(CollectorRegistry())


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (NotEligibleError("modality CT: this pipeline reads DX"), "modality"),
        (NotEligibleError("a lateral view, by its description: this model reads PA"), "view"),
        (NotEligibleError("body part HAND: this model reads CHEST"), "body-part"),
        (NotEligibleError("the image is of an animal, by its species or description"), "species"),
        (NotEligibleError("a picture made on a workstation (conversion type WSD), no film"), "made-picture"),
        (NotEligibleError("10 x 10 pixels: this model needs at least 224 x 224"), "size"),
        (UndecodableError("whatever"), "undecodable"),
        (NotEligibleError("whatever"), "other"),
    ],
)
def test_reasons_become_few_classes(error: Exception, name: str) -> None:
    assert reason_class(error) == name


def test_connections_that_trickle_keep_nobody_out_and_do_not_pile_up(endpoints: Endpoints) -> None:
    before = threading.active_count()
    greedy = []
    for _ in range(3 * MAXIMUM_CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", endpoints.port))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        greedy.append(connection)
    assert get(endpoints, "/health/live")[0] == 200
    deadline = time.monotonic() + 10.0
    while threading.active_count() > before + MAXIMUM_CONNECTIONS and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before + MAXIMUM_CONNECTIONS
    for connection in greedy:
        connection.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"GET " + b"/" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"DELETE / HTTP/1.1\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_next_one_served(endpoints: Endpoints, request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", endpoints.port), timeout=20.0) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = bytearray()
        try:
            while block := connection.recv(65536):
                answer += block
        except ConnectionResetError:
            pass  # it did not read all of it
    assert b" 200 " not in answer[:20]
    assert get(endpoints, "/health/live")[0] == 200
