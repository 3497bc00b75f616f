"""The queue over brokers that fail, and the worker that listens to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from faults.brokers import RedisBroker
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from service.queue import enqueue, make_app, waiting
from service.settings import load_settings
from tests.require import require_tool

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
