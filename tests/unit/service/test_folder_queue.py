from __future__ import annotations

import json
import tempfile
from queue import Empty
from typing import TYPE_CHECKING

import pytest
from kombu import Consumer

from service.errors import SettingsError
from service.queue import QUEUES, enqueue, make_app
from service.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery
    from kombu import Message


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    made = make_app(load_settings(None, {"PELLUCID__STATE__DIRECTORY": json.dumps(str(tmp_path))}))
    yield made
    made.close()


@pytest.mark.parametrize("url", ["nix://:secret@host", "localhost", ":secret@host"])
def test_a_broker_of_no_kind_is_a_wrong_setting_that_gives_no_secret_away(url: str) -> None:
    with pytest.raises(SettingsError, match=r"queue\.broker_url: .* is no kind of broker") as caught:
        make_app(load_settings(None, {"PELLUCID__QUEUE__BROKER_URL": url}))
    assert "secret" not in str(caught.value)


def test_a_job_id_comes_out_as_it_went_in_and_leaves_no_file(app: Celery, tmp_path: Path) -> None:
    enqueue(app, "j1", "routine")
    with app.connection_for_read() as connection:
        message = connection.default_channel._get("routine")
        with pytest.raises(Empty):
            connection.default_channel._get("routine")
    assert "j1" in json.dumps(message["headers"]["argsrepr"])
    assert [path for path in (tmp_path / "queue").iterdir() if path.is_file()] == []


def test_what_is_left_of_a_broken_message_is_passed_over(app: Celery, tmp_path: Path) -> None:
    (tmp_path / "queue" / "0_empty.routine.msg").touch()
    (tmp_path / "queue" / "0_torn.routine.msg").write_text('{"body": "W')
    enqueue(app, "j1", "routine")
    with app.connection_for_read() as connection:
        assert "j1" in connection.default_channel._get("routine")["headers"]["argsrepr"]


@pytest.mark.parametrize(
    "content",
    [b"[]", b"null", b'{"body": 1}', b'{"properties": {}}', b"\xff\xfe", b"[" * 100_000,
     b'{"body": "A", "properties": {"body_encoding": "base64", "delivery_tag": "1"}}'],
)  # fmt: skip
def test_what_is_no_message_is_dropped_and_never_reaches_the_worker(
    app: Celery, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "queue" / "0_forged.routine.msg").write_bytes(content)
    enqueue(app, "j1", "routine")
    with app.connection_for_read() as connection:
        assert "j1" in connection.default_channel._get("routine")["headers"]["argsrepr"]
    assert [path for path in (tmp_path / "queue").iterdir() if path.is_file()] == []


def test_a_message_that_is_being_written_is_not_taken(app: Celery, tmp_path: Path) -> None:
    (tmp_path / "queue" / ".1_half.routine.msg.part").touch()
    with app.connection_for_read() as connection, pytest.raises(Empty):
        connection.default_channel._get("routine")


def test_nothing_of_a_message_goes_to_the_temporary_files(
    app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no room"))
    enqueue(app, "j1", "routine")
    with app.connection_for_read() as connection:
        assert "j1" in connection.default_channel._get("routine")["headers"]["argsrepr"]


def test_urgent_jobs_are_taken_before_all_others(app: Celery) -> None:
    for number in range(3):
        enqueue(app, f"r{number}", "routine")
    for number in range(3):
        enqueue(app, f"s{number}", "stat")
    taken: list[str] = []
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        queues = [app.amqp.queues[name](channel) for name in QUEUES]

        def take(body: object, message: Message) -> None:
            taken.append(message.headers["argsrepr"])
            message.ack()

        with Consumer(channel, queues=queues, callbacks=[take], accept=["json"]):
            while len(taken) < 6:
                connection.drain_events(timeout=5)
    assert taken == [f"['{name}']" for name in ("s0", "s1", "s2", "r0", "r1", "r2")]
