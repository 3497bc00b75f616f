"""What an S3-compatible store may do to us, and what is said of it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from bucket import Bucket, Server, files
from certificates import Authority

from service.errors import OutOfSpaceError, SettingsError, StoreError
from service.s3 import S3Storage
from service.settings import load_settings
from service.spool import open_spool
from workers.sandbox import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MESSAGE = "Erika"
"""Part of the words that the store sends with each refusal."""


@pytest.fixture
def storage(bucket: Bucket, tmp_path: Path) -> S3Storage:
    return opened(bucket, tmp_path)


def opened(bucket: Bucket, folder: Path, **changes: Any) -> S3Storage:
    return S3Storage(bucket.section(**changes), "spool", copies=folder / "copies", attempts=1)


@contextmanager
def silence() -> Iterator[int]:
    """Listen on a port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


def test_names_hold_the_prefix_and_the_key_and_no_metadata_goes_along(storage: S3Storage, bucket: Bucket) -> None:
    storage.write("ab/cd.dcm", b"x")
    assert list(bucket.objects) == ["site-a/spool/ab/cd.dcm"]
    ((method, path, headers),) = bucket.requests
    assert (method, path) == ("PUT", f"/{bucket.name}/site-a/spool/ab/cd.dcm")
    assert [name for name in headers if name.startswith("x_amz_meta")] == []
    assert headers["x_amz_checksum_sha256"] == "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="


def test_bytes_that_change_on_their_way_are_not_kept(storage: S3Storage, bucket: Bucket, tmp_path: Path) -> None:
    bucket.alter = True
    source = tmp_path / "source"
    source.write_bytes(b"pixels")
    with pytest.raises(StoreError, match="got other bytes than were sent"):
        storage.put("a.dcm", source)
    assert source.read_bytes() == b"pixels"
    assert bucket.objects == {}
    bucket.alter = False
    storage.check()
    storage.put("a.dcm", source)
    assert list(bucket.objects) == ["site-a/spool/a.dcm"]


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "AccessDenied", r"refuses us \(AccessDenied\): check \[spool\]"),
        (403, "SignatureDoesNotMatch", "refuses us"),
        (404, "NoSuchBucket", "create it, or correct spool.url"),
        (503, "SlowDown", r"cannot serve us now: see its own log \(SlowDown, status 503\)"),
        (500, "InternalError", "cannot serve us now"),
        (403, "RequestTimeTooSkewed", "set the clocks by NTP"),
        (400, "EntityTooLarge", "takes no file of this size"),
        (418, "Erika-Mustermann", "no code, status 418"),
    ],
)
def test_each_refusal_says_what_to_do_and_nothing_that_the_store_said(  # noqa: PLR0917
    storage: S3Storage, bucket: Bucket, tmp_path: Path, status: int, code: str, says: str
) -> None:
    storage.write("here.dcm", b"x")
    bucket.refusal = (status, code)
    with pytest.raises(StoreError, match=says) as found:
        storage.write("a.dcm", b"x")
    assert MESSAGE not in str(found.value)
    for use in (
        lambda: storage.file("here.dcm").__enter__(),
        lambda: list(storage.entries("")),
        lambda: storage.move("here.dcm", "b.dcm"),
        lambda: storage.remove("here.dcm"),
        lambda: storage.find("other.dcm") if status != 404 else storage.remove("other.dcm"),
    ):
        with pytest.raises(StoreError):
            use()
    assert files(tmp_path) == []
    bucket.refusal = None
    assert [entry.key for entry in storage.entries("")] == ["here.dcm"]


def test_a_store_that_is_away_is_not_waited_for_again_at_once(bucket: Bucket, tmp_path: Path) -> None:
    storage = opened(bucket, tmp_path, endpoint_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match=r"cannot be reached: see spool\.endpoint_url"):
        storage.check()
    asked = time.monotonic()
    with pytest.raises(StoreError, match="cannot be reached"):
        storage.check()
    assert time.monotonic() - asked < 1.0


def test_a_store_that_comes_back_is_used_again(storage: S3Storage, bucket: Bucket) -> None:
    bucket.refusal = (503, "SlowDown")
    with pytest.raises(StoreError):
        storage.check()
    bucket.refusal = None
    with pytest.raises(StoreError):
        storage.check()
    storage._known_until = 0.0
    storage.check()
    asked = len(bucket.requests)
    storage.check()
    assert len(bucket.requests) == asked


def test_while_one_asks_a_silent_store_the_others_do_not_wait(bucket: Bucket, tmp_path: Path) -> None:
    with silence() as port:
        storage = opened(bucket, tmp_path, endpoint_url=f"http://127.0.0.1:{port}", timeout_s=3.0)
        first: list[Exception] = []

        def ask() -> None:
            try:
                storage.check()
            except StoreError as error:
                first.append(error)

        thread = threading.Thread(target=ask)
        begun = time.monotonic()
        thread.start()
        while not storage._asking.locked():
            time.sleep(0.01)
        storage.check()
        assert thread.is_alive()
        thread.join(timeout=60)
        assert "ReadTimeoutError" in str(first[0])
        assert time.monotonic() - begun < 30


def test_what_breaks_off_while_it_is_copied_leaves_no_copy(bucket: Bucket, tmp_path: Path) -> None:
    def half(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=half, args=(server,))
        thread.start()
        storage = opened(bucket, tmp_path, endpoint_url=f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(StoreError, match="cannot be reached"), storage.file("a.dcm"):
            pass
        thread.join(timeout=60)
    assert files(tmp_path) == []


def test_a_full_disk_while_copying_is_the_machines_trouble_and_not_the_stores(
    storage: S3Storage, tmp_path: Path
) -> None:
    storage.write("a.dcm", b"x" * 100_000)
    full = S3Storage.__new__(S3Storage)
    full.__dict__ |= storage.__dict__ | {"_copies": tmp_path / "full"}
    (tmp_path / "full").mkdir()
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal  # noqa: PLC0415

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutOfSpaceError, match="cannot copy a file"), full.file("a.dcm"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(tmp_path) == []
    storage.check()


def test_a_store_is_believed_when_our_authority_signed_for_it_and_else_nothing_is_sent(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server = Server(authority.issue("store"))
    server.start()
    bucket = Bucket(server=server)
    endpoint = f"https://127.0.0.1:{server.port}"
    try:
        trusting = opened(bucket, tmp_path, endpoint_url=endpoint, trusted=str(authority.path))
        trusting.write("a.dcm", b"x")
        assert len(bucket.requests) == 1
        for trusted in ("", str(Authority(tmp_path / "other").path)):
            stranger = opened(bucket, tmp_path, endpoint_url=endpoint, trusted=trusted)
            with pytest.raises(StoreError, match=r"a certificate that is not trusted: see spool\.trusted"):
                stranger.write("b.dcm", b"x")
        gone = opened(bucket, tmp_path, endpoint_url=endpoint, trusted=str(tmp_path / "gone.pem"))
        with pytest.raises(StoreError, match="store"):
            gone.write("b.dcm", b"x")
        assert len(bucket.requests) == 1
    finally:
        server.stop()


def test_without_credentials_the_store_says_where_they_go(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    storage = opened(bucket, tmp_path, access_key_id="", secret_access_key="")
    with pytest.raises(StoreError, match=r"needs credentials: set them in \[spool\]"):
        storage.check()


def test_many_files_are_listed_in_pages(storage: S3Storage, bucket: Bucket) -> None:
    for number in range(1003):
        bucket._backend.put_object(bucket.name, f"site-a/spool/instances/{number:04}.dcm", b"x")
    assert sum(1 for _ in storage.entries("instances")) == 1003


def test_nobody_without_a_bucket_pays_for_boto3() -> None:
    code = (
        "import sys, dicom_nodes.listener, dicom_nodes.sender, dicom_nodes.doctor, workers.app\n"
        "from service.settings import Settings\nfrom service.spool import open_spool\n"
        "from service.outbox import open_outbox\nopen_spool(Settings()); open_outbox(Settings())\n"
        "print([name for name in sys.modules if name.startswith('boto')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_without_boto3_a_bucket_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.s3")
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    settings = load_settings(None, {"PELLUCID__SPOOL__URL": "s3://bucket"})
    with pytest.raises(SettingsError, match=re.escape("pip install 'pellucid[s3]'")):
        open_spool(settings)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"URL": "bucket"}, "s3://bucket"),
        ({"URL": "s3://UPPER"}, "s3://bucket"),
        ({"URL": "s3://bucket", "ENDPOINT_URL": "store:9000"}, "https://"),
        ({"URL": "s3://bucket", "ACCESS_KEY_ID": "key"}, "or neither"),
        ({"REGION": "eu-central-1"}, "url is missing"),
        ({"URL": "s3://bucket", "ENDPOINT": "x"}, "did you mean 'endpoint_url'"),
    ],
)
def test_wrong_settings_of_a_store_are_refused(variables: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        load_settings(None, {f"PELLUCID__SPOOL__{key}": value for key, value in variables.items()})


def test_the_secret_is_in_no_text_of_the_settings(bucket: Bucket) -> None:
    assert "secret_access_key" not in repr(bucket.section())
