"""An S3-compatible store, for machines that share no volume. Imported only where `[spool] url` names a bucket."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import os
import shutil
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError, SSLError

from service.errors import StoreError
from service.files import make_directory, space_errors
from service.staging import new_part
from service.storage import Stored, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from service.sections import Spool

ATTEMPTS = 3
_CONNECTIONS = 50
_WELL_FOR_S = 10.0
"""So long after it answered the store is not asked whether it does."""
_TROUBLE_FOR_S = 2.0
"""So long after it failed nobody else waits for it."""
_BLOCK_BYTES = 1 << 20
_BAD_REQUEST = 400

_WORDS = {
    "NoSuchBucket": "has no such bucket: create it, or correct spool.url",
    "404": "has no such bucket: create it, or correct spool.url",
    "301": "keeps this bucket in another region: set spool.region",
    "PermanentRedirect": "keeps this bucket in another region: set spool.region",
    "AuthorizationHeaderMalformed": "keeps this bucket in another region: set spool.region",
    "RequestTimeTooSkewed": "has another time than this machine: set the clocks by NTP",
    "EntityTooLarge": "takes no file of this size",
    "BadDigest": "got other bytes than were sent",
    "XAmzContentSHA256Mismatch": "got other bytes than were sent",
}
"""What the store does, by S3 error code (Amazon S3 API Reference, Error Responses)."""
_REFUSED = frozenset(
    {"401", "403", "AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)


class S3Storage:
    """Files below one prefix of a bucket. What is read is copied into a folder of this machine meanwhile.

    A file is kept when the store has answered that it has the bytes of the checksum that went with them.
    """

    def __init__(self, settings: Spool, name: str, *, copies: Path, attempts: int = ATTEMPTS) -> None:
        """Take the last part of the prefix, and the folder for copies; nothing is asked of the store yet."""
        bucket, _, prefix = settings.url.removeprefix("s3://").strip("/").partition("/")
        self.place = f"s3://{bucket}/{prefix}/{name}" if prefix else f"s3://{bucket}/{name}"
        self._bucket = bucket
        self._prefix = f"{prefix}/{name}/" if prefix else f"{name}/"
        self._copies = copies
        self._client = _client(settings.model_copy(update={"url": ""}), attempts)
        self._asking = threading.Lock()
        self._known_until = 0.0
        self._trouble = ""

    def check(self) -> None:
        """Ask for the bucket now and then; while one asks, the others go by what was known last."""
        if time.monotonic() >= self._known_until and self._asking.acquire(blocking=False):
            try:
                with self._asked():
                    self._client.head_bucket(Bucket=self._bucket)
            finally:
                self._asking.release()
        elif self._trouble:
            raise StoreError(self._trouble)

    def put(self, key: str, path: Path) -> None:
        """Send a file with its SHA-256, which the store compares."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            self._send(key, file, digest)
        path.unlink(missing_ok=True)

    def write(self, key: str, data: bytes) -> None:
        """Send bytes with their SHA-256, which the store compares."""
        self._send(key, BytesIO(data), hashlib.sha256(data).digest())

    @contextmanager
    def file(self, key: str) -> Iterator[Path]:
        """Copy a file here (0600) and remove the copy in the end."""
        make_directory(self._copies)
        path = new_part(self._copies)
        try:
            with self._asked(), space_errors("cannot copy a file from the store"):
                self._copy(key, path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def find(self, key: str) -> Stored | None:
        """Ask for a file's size and age."""
        with self._asked():
            try:
                found = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                if _code(error) in ("404", "NoSuchKey"):
                    return None
                raise
        return Stored(key=key, size=found["ContentLength"], age_s=_age_s(found["LastModified"], found))

    def entries(self, under: str) -> Iterator[Stored]:
        """List files, a thousand at a time."""
        folder = f"{self._prefix}{under}/" if under else self._prefix
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=folder))
        while True:
            with self._asked():
                page = next(pages, None)
            if page is None:
                return
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                yield Stored(key=key, size=entry["Size"], age_s=_age_s(entry["LastModified"], page))

    def move(self, key: str, to: str) -> bool:
        """Copy within the store, then remove: S3 cannot rename. A crash in between leaves both."""
        source = {"Bucket": self._bucket, "Key": self._prefix + key}
        with self._asked():
            try:
                self._client.copy_object(Bucket=self._bucket, Key=self._prefix + to, CopySource=source)
            except ClientError as error:
                if _code(error) == "NoSuchKey":
                    return False
                raise
        self.remove(key)
        return True

    def remove(self, key: str) -> None:
        """Delete; a bucket with versions keeps them by its own rules."""
        with self._asked():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def _send(self, key: str, body: BinaryIO, digest: bytes) -> None:
        with self._asked():
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + key,
                Body=body,
                ChecksumSHA256=base64.b64encode(digest).decode(),
                ContentType="application/dicom",
            )

    def _copy(self, key: str, path: Path) -> None:
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                raise missing(key, self.place) from None
            raise
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        # As its own context it would hand out what does not notice an early end.
        with os.fdopen(descriptor, "wb") as file, closing(found["Body"]) as body:
            shutil.copyfileobj(body, file, _BLOCK_BYTES)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Turn what goes wrong into `StoreError`, and remember how the store was."""
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            text = _text(error)
            # A bad request says nothing about the next one.
            if not isinstance(error, ClientError) or _status(error) != _BAD_REQUEST:
                self._trouble, self._known_until = text, time.monotonic() + _TROUBLE_FOR_S
            raise StoreError(text) from None
        else:
            self._trouble, self._known_until = "", time.monotonic() + _WELL_FOR_S


@cache
def _client(settings: Spool, attempts: int) -> Any:
    """Make the one client of this process for a store; it serves all threads."""
    return Session().client(
        "s3",
        endpoint_url=settings.endpoint_url or None,
        region_name=settings.region or None,
        aws_access_key_id=settings.access_key_id or None,
        aws_secret_access_key=settings.secret_access_key or None,
        verify=settings.trusted or None,
        config=Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=settings.timeout_s,
            read_timeout=settings.timeout_s,
            max_pool_connections=_CONNECTIONS,
            # Our own checksum goes with each file, and the signature has one too: stores that know no newer kinds
            # take these.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "addressing_style": "path" if settings.endpoint_url else "auto",
                "payload_signing_enabled": True,
            },
        ),
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _text(error: ClientError | BotoCoreError) -> str:
    """Say what the store does and what to do, in words of ours: its own could name anything."""
    if isinstance(error, ClientError):
        code = _code(error) if _code(error).isalnum() else "no code"
        if code in _REFUSED:
            return f"the spool's store refuses us ({code}): check [spool] and the bucket's policy"
        words = _WORDS.get(code, "cannot serve us now: see its own log")
        return f"the spool's store {words} ({code}, status {_status(error)})"
    name = type(error).__name__
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"the spool's store needs credentials: set them in [spool] ({name})"
    if isinstance(error, SSLError):
        return f"the spool's store has a certificate that is not trusted: see spool.trusted ({name})"
    return f"the spool's store cannot be reached: see spool.endpoint_url ({name})"


def _age_s(modified: datetime, answer: dict[str, Any]) -> float:
    """Return how old a file is at least: both times are the store's own, in whole seconds."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    now = email.utils.parsedate_to_datetime(date) if date else datetime.now(UTC)
    return max(0.0, (now - modified).total_seconds() - 1.0)
