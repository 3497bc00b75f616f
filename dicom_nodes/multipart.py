"""`multipart/related` bodies (RFC 2387, RFC 2046 section 5.1), parsed as they arrive and written as they are sent."""

from __future__ import annotations

import re
from email.message import Message
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

MAXIMUM_HEADER_BYTES = 1 << 14
# RFC 2046 allows 70 characters; Orthanc writes 73.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,199}[0-9A-Za-z'()+_,\-./:=?]")


class MultipartError(ValueError):
    """The body is no multipart message with this boundary."""


class PartSink(Protocol):
    """What takes the bytes of one part."""

    def write(self, data: memoryview) -> None:
        """Take some bytes."""

    def finish(self) -> None:
        """The part is complete."""

    def discard(self) -> None:
        """The rest will never come."""


class MultipartReader:
    """Cuts a body into parts. However large they are, it holds no more than a boundary and a header."""

    def __init__(self, boundary: str, begin: Callable[[dict[str, str]], PartSink]) -> None:
        """Take the boundary of the content type, and what begins a part by its headers (lower-case names)."""
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._begin = begin
        # The first boundary has no line before it (RFC 2046): lend it one.
        self._rest = bytearray(b"\r\n")
        self._sink: PartSink | None = None
        self._between = True
        """True before a part's headers are read: in the preamble, or after a boundary."""
        self._preamble = True
        self.complete = False
        """True after the closing boundary."""

    def feed(self, data: bytes | memoryview) -> None:
        """Take some bytes of the body.

        Raises:
            MultipartError: a header is too long or malformed.
        """
        self._rest += data
        while not self.complete and self._step():
            continue
        if self.complete:
            self._rest.clear()

    def close(self) -> None:
        """End: discard a part that is not complete."""
        if self._sink is not None:
            self._sink.discard()
            self._sink = None

    def _step(self) -> bool:
        if self._sink is None and not self._preamble:
            return self._read_headers()
        position = self._rest.find(self._delimiter)
        if position < 0:
            keep = len(self._delimiter) - 1
            self._pass_on(max(0, len(self._rest) - keep))
            return False
        # What follows a boundary tells whether it is the last one.
        if len(self._rest) < position + len(self._delimiter) + 2:
            self._pass_on(position)
            return False
        self._pass_on(position)
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.finish()
        self._preamble = False
        if self._rest[len(self._delimiter) :].startswith(b"--"):
            self.complete = True
        del self._rest[: len(self._delimiter)]
        return True

    def _pass_on(self, count: int) -> None:
        if count:
            if self._sink is not None:
                self._sink.write(memoryview(bytes(self._rest[:count])))
            del self._rest[:count]

    def _read_headers(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            if len(self._rest) > MAXIMUM_HEADER_BYTES:
                raise MultipartError("the header of a part is too long")
            return False
        headers = {}
        for line in self._rest[:end].decode("latin-1").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
            elif line.strip():
                raise MultipartError("a line in the header of a part is none")
        # The line break stays: an empty part ends with the boundary that begins with it.
        del self._rest[: end + 4]
        self._sink = self._begin(headers)
        return True


def boundary_of(content_type: str) -> str:
    """Return the boundary of a `multipart/related` content type.

    Raises:
        MultipartError: it is another type, or has none.
    """
    message = Message()
    message["content-type"] = content_type
    if message.get_content_type() != "multipart/related":
        raise MultipartError("the content type is not multipart/related")
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise MultipartError("the content type has no valid boundary")
    return boundary


def part_type_of(content_type: str) -> str | None:
    """Return the media type of the parts of `multipart/related`, lower case; empty when it is not said.

    None: the content type is another one.
    """
    message = Message()
    message["content-type"] = content_type
    if message.get_content_type() != "multipart/related":
        return None
    found = message.get_param("type")
    return found.lower() if isinstance(found, str) else ""
