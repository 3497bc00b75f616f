"""The queue over brokers that fail, and the worker that listens to it."""

from __future__ import annotations

import base64
import json
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from celery.contrib.testing.worker import start_worker
from faults.brokers import RedisBroker
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service.queue import PROCESS, QUEUES, enqueue, make_app, waiting
from service.settings import load_settings
from tests.require import require_tool
from tests.waiting import comes_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisBroker]:
    require_tool("redis-server")
    made = RedisBroker(tmp_path / "redis")
    yield made
    made.stop()


@pytest.fixture
def app(broker: RedisBroker, tmp_path: Path) -> Iterator[Celery]:
    made = app_for(tmp_path, PELLUCID__QUEUE__BROKER_URL=json.dumps(broker.url))
    yield made
    made.close()


def app_for(folder: Path, **settings: str) -> Celery:
    return make_app(load_settings(None, {"PELLUCID__STATE__DIRECTORY": json.dumps(str(folder)), **settings}))


@pytest.mark.parametrize("refusal", ["ack", "reject"])
def test_a_message_that_redis_cannot_hear_the_end_of_does_not_bar_the_next(
    broker: RedisBroker, app: Celery, refusal: str
) -> None:
    enqueue(app, "j1", "routine")
    connection = app.connection_for_read()
    channel = connection.default_channel
    channel.basic_qos(0, 1, False)
    message = app.amqp.queues["routine"](channel).get()
    assert message is not None
    assert not channel.qos.can_consume()
    broker.kill()
    with pytest.raises(RedisConnectionError):
        getattr(message, refusal)()
    assert channel.qos.can_consume()
    # Nothing is given back to the dead broker when this connection goes.
    channel.qos.restore_at_shutdown = False
    connection.release()


def test_calls_that_wait_are_counted_over_all_queues(app: Celery, broker: RedisBroker) -> None:
    assert waiting(app) == 0
    enqueue(app, "j1", "routine")
    enqueue(app, "j2", "routine")
    enqueue(app, "j3", "stat")
    assert waiting(app) == 3
    broker.kill()
    with pytest.raises(OperationalError):
        waiting(app)


def test_calls_are_counted_in_the_embedded_queue_too(tmp_path: Path) -> None:
    app = app_for(tmp_path)
    assert waiting(app) == 0
    enqueue(app, "j1", "stat")
    enqueue(app, "j2", "routine")
    assert waiting(app) == 2
    app.close()


NO_CALLS = {
    "no JSON": lambda _call: b"{no",
    "no message": lambda _call: b"[]",
    "nested without end": lambda _call: b"[" * 100_000,
    "a body that is no base64": lambda call: changed(call, body="A"),
    "pickle": lambda call: changed(call, **{"content-type": "application/x-python-serialize"}),
    "no content type": lambda call: changed(call, **{"content-type": [1]}),
    "a task that is unknown": lambda call: changed(call, headers={**call["headers"], "task": "evil"}),
    "a task that is no name": lambda call: changed(call, headers={**call["headers"], "task": [1]}),
    "no id": lambda call: changed(call, headers={**call["headers"], "id": [1]}),
    "no id at all": lambda call: changed(call, headers={"task": PROCESS}),
    "no headers": lambda call: changed(call, headers="x"),
    "a body that is a number": lambda call: changed(call, body="Nw=="),
    "10 MB": lambda call: changed(call, body=base64.b64encode(bytes(10_000_000)).decode()),
}


def changed(call: dict[str, Any], **values: object) -> bytes:
    properties = {**call["properties"], "delivery_tag": str(uuid.uuid4())}
    return json.dumps({**call, "properties": properties, **values}).encode()


def _add_file(folder: Path, content: bytes) -> None:
    (folder / f"{time.time_ns()}_x.routine.msg").write_bytes(content)


@pytest.mark.parametrize("transport", ["redis", "folder"])
@pytest.mark.filterwarnings("ignore::celery.platforms.SecurityWarning")
def test_a_worker_lives_on_after_any_message(transport: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if transport == "redis":
        app, redis = request.getfixturevalue("app"), Redis.from_url(request.getfixturevalue("broker").url)
        enqueue(app, "sample", "routine")
        call = json.loads(redis.rpop("routine"))
        put = partial(redis.lpush, "routine")
    else:
        app, folder = app_for(tmp_path), tmp_path / "queue"
        enqueue(app, "sample", "routine")
        (path,) = folder.glob("*.msg")
        call = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        put = partial(_add_file, folder)
    done: list[str] = []

    def process(job_id: str) -> None:
        done.append(job_id)

    app.task(process, name=PROCESS, shared=False)
    with start_worker(app, pool="solo", queues=list(QUEUES), perform_ping_check=False, shutdown_timeout=60):
        for name, forge in NO_CALLS.items():
            put(forge(call))
            enqueue(app, name, "routine")
            assert comes_true(lambda name=name: name in done, 60), name
    assert done == list(NO_CALLS)
    app.close()
