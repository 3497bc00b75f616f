"""A Part 10 file as it arrives: file meta information first, then the data set in pieces (PS3.10 section 7)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_nodes.requests import Reception
    from dicom_nodes.status import Answer

MAXIMUM_META_BYTES = 1 << 16
_PREAMBLE = 132
_LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"})
_SOP_CLASS, _SOP_INSTANCE, _SYNTAX = 0x0002, 0x0003, 0x0010


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What the file meta information says."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class Part10Stream:
    """Hands the data set of a file on to a reception that its meta information begins."""

    def __init__(
        self, begin: Callable[[Meta], Reception], done: Callable[[Meta | None, Answer | Exception], None]
    ) -> None:
        """Take what begins a reception, and what hears of its end: an answer, or why the file is none."""
        self._begin = begin
        self._done = done
        self._head: _Head | None = _Head()
        self._meta: Meta | None = None
        self._reception: Reception | None = None
        self._failure: InvalidInstanceError | None = None

    def write(self, data: memoryview) -> None:
        """Take some bytes; after a failure they are dropped."""
        if self._reception is not None:
            self._reception.write(data)
        elif self._head is not None:
            self._try_to_begin(self._head, data)

    def finish(self) -> None:
        """The file is complete."""
        if self._reception is None:
            self._done(None, self._failure or InvalidInstanceError("a part that is no DICOM file"))
        else:
            self._done(self._meta, self._reception.finish())

    def discard(self) -> None:
        """The rest will never come."""
        if self._reception is not None:
            self._reception.discard()

    def _try_to_begin(self, head: _Head, data: memoryview) -> None:
        try:
            end = head.feed(data)
            if end is None:
                return
            self._meta = head.meta()
        except InvalidInstanceError as error:
            self._failure, self._head = error, None
            return
        self._head = None
        self._reception = self._begin(self._meta)
        self._reception.write(memoryview(head.data)[end:])


class _Head:
    """The beginning of a file: each element of the meta information is read once, in however small pieces it comes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._position = _PREAMBLE
        self._values: dict[int, str] = {}

    def feed(self, data: memoryview) -> int | None:
        """Take some bytes; return where the data set begins, None while too little is there.

        Raises:
            InvalidInstanceError: this is no Part 10 file.
        """
        self.data += data
        if len(self.data) >= _PREAMBLE and self.data[128:_PREAMBLE] != b"DICM":
            raise InvalidInstanceError("a part that is no DICOM file")
        while len(self.data) >= self._position + 12:
            group, element, vr, length = struct.unpack_from("<HH2sH", self.data, self._position)
            if group != 2:  # noqa: PLR2004 -- the data set begins
                return self._position
            start = self._position + 8
            if vr in _LONG:
                length, start = struct.unpack_from("<I", self.data, self._position + 8)[0], self._position + 12
            if length > MAXIMUM_META_BYTES:
                raise InvalidInstanceError("the file meta information is damaged")
            if len(self.data) < start + length:
                break
            self._values[element] = bytes(self.data[start : start + length]).decode("latin-1").strip(" \x00")
            self._position = start + length
        if len(self.data) > MAXIMUM_META_BYTES:
            raise InvalidInstanceError("the file meta information is too long")
        return None

    def meta(self) -> Meta:
        """Return what it says.

        Raises:
            InvalidInstanceError: it names no transfer syntax.
        """
        if not self._values.get(_SYNTAX):
            raise InvalidInstanceError("the file meta information names no transfer syntax")
        return Meta(
            sop_class_uid=self._values.get(_SOP_CLASS, ""),
            sop_instance_uid=self._values.get(_SOP_INSTANCE, ""),
            transfer_syntax_uid=self._values[_SYNTAX],
        )
