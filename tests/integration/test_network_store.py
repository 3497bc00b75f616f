"""The way in when instances go to an S3-compatible store: success means that the store has them and the ledger too."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from bucket import files
from pydicom import dcmread
from sqlalchemy import text

from dicom_nodes.client import echo, send_files
from service.s3 import S3Storage
from service.spool import Spool
from tests.network import AE, cr_image, station, write_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bucket import Bucket

    from tests.network import Station


@contextmanager
def listening(folder: Path, bucket: Bucket, name: str = "node", **changes: Any) -> Iterator[Station]:
    """Run a listener's server whose spool is a bucket; `name` is that of its machine."""
    storage = S3Storage(bucket.section(**changes), "spool", copies=folder / name / "incoming", attempts=1)
    with station(folder, spool=Spool(folder / name, storage=storage)) as running:
        yield running


def send(running: Station, path: Path, calling: str = "TEST") -> int | None:
    (outcome,) = send_files([path], "127.0.0.1", running.port, AE, calling)
    return outcome.status


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_image(tmp_path / "film.dcm", cr_image(PatientName="Mustermann^Erika", PatientID="4711"))


def test_success_means_that_the_bucket_has_the_instance_and_this_machine_nothing(
    tmp_path: Path, bucket: Bucket, film: Path
) -> None:
    with listening(tmp_path, bucket) as running:
        assert send(running, film) == 0x0000
        (instance,) = running.arrivals.unassigned()
        assert list(bucket.objects) == [f"site-a/spool/instances/{instance.key}"]
        with running.spool.files([instance]) as (path,):
            assert dcmread(path) == dcmread(film)
        assert running.files() == []
    for method, path_of_it, headers in bucket.requests:
        said = " ".join((method, path_of_it, *headers.values()))
        assert not [mark for mark in ("Mustermann", "4711", instance.sop_instance_uid) if mark in said]


@pytest.mark.parametrize("refusal", [(503, "SlowDown"), (403, "AccessDenied"), (404, "NoSuchBucket")])
@pytest.mark.parametrize("known", [False, True])
def test_a_store_that_refuses_is_out_of_resources_until_it_is_well(
    tmp_path: Path, bucket: Bucket, film: Path, refusal: tuple[int, str], known: bool
) -> None:
    with listening(tmp_path, bucket) as running:
        if not known:  # the store was well a moment ago: it fails with the instance in hand
            running.spool.check_space()
        bucket.refusal = refusal
        assert send(running, film) == 0xA700
        echo("127.0.0.1", running.port, called=AE, calling="TEST")
        assert running.files() == []
        assert running.arrivals.unassigned() == []
        bucket.refusal = None
        assert bucket.objects == {}
        running.spool._storage._known_until = 0.0
        assert send(running, film) == 0x0000
        assert len(bucket.objects) == 1


def test_bytes_that_change_on_their_way_to_the_store_are_no_success(tmp_path: Path, bucket: Bucket, film: Path) -> None:
    with listening(tmp_path, bucket) as running:
        bucket.alter = True
        assert send(running, film) == 0xA700
        assert (bucket.objects, running.files()) == ({}, [])
        bucket.alter = False
        assert send(running, film) == 0x0000


def test_a_store_that_falls_silent_is_given_up_while_others_are_served(
    tmp_path: Path, bucket: Bucket, film: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        silence = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with listening(tmp_path, bucket, endpoint_url=silence, timeout_s=3.0) as running:
            statuses: list[int | None] = []
            sending = threading.Thread(target=lambda: statuses.append(send(running, film)))
            sending.start()
            storage = running.spool._storage
            while not storage._asking.locked():
                time.sleep(0.01)
            echo("127.0.0.1", running.port, called=AE, calling="OTHER")
            assert sending.is_alive()
            sending.join(timeout=60)
            assert statuses == [0xA700]
            assert running.files() == []


def test_an_instance_that_could_not_be_recorded_has_one_object_when_it_comes_again(
    tmp_path: Path, bucket: Bucket, film: Path
) -> None:
    with listening(tmp_path, bucket) as running:
        with running.arrivals.writing() as connection:
            refuse = "CREATE TRIGGER refuse BEFORE INSERT ON studies BEGIN SELECT RAISE(ABORT, 'no'); END"
            connection.execute(text(refuse))
        assert send(running, film) == 0xA700
        assert files(tmp_path / "node") == []
        with running.arrivals.writing() as connection:
            connection.execute(text("DROP TRIGGER refuse"))
        assert send(running, film) == 0x0000
        assert len(bucket.objects) == 1


def test_two_listeners_that_get_the_same_instance_at_once_keep_one(tmp_path: Path, bucket: Bucket, film: Path) -> None:
    with listening(tmp_path, bucket, "one") as one, listening(tmp_path, bucket, "two") as two:
        statuses: list[int | None] = []
        threads = [
            threading.Thread(target=lambda running=running: statuses.append(send(running, film)))
            for running in (one, two, one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert statuses == [0x0000] * 4
        assert len(bucket.objects) == 1
        assert len(one.arrivals.unassigned()) == 1
        assert one.spool.set_orphans_aside(one.arrivals.recorded_keys, settled_after_s=-60.0) == 0
        assert (one.files(), two.files()) == ([], [])
