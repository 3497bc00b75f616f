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
        self._head = bytearray()
        self._meta: Meta | None = None
        self._reception: Reception | None = None
        self._failure: InvalidInstanceError | None = None

    def write(self, data: memoryview) -> None:
        """Take some bytes; after a failure they are dropped."""
        if self._reception is not None:
            self._reception.write(data)
        elif self._failure is None:
            self._head += data
            self._try_to_begin()

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

    def _try_to_begin(self) -> None:
        try:
            found = split_meta(self._head)
        except InvalidInstanceError as error:
            self._failure = error
            self._head.clear()
            return
        if found is None:
            if len(self._head) > MAXIMUM_META_BYTES:
                self._failure = InvalidInstanceError("the file meta information is too long")
                self._head.clear()
            return
        self._meta, end = found
        self._reception = self._begin(self._meta)
        self._reception.write(memoryview(bytes(self._head[end:])))
        self._head.clear()


def split_meta(head: bytearray) -> tuple[Meta, int] | None:
    """Read the file meta information from the beginning of a file.

    Returns:
        It, and where the data set begins; None while too little is there.

    Raises:
        InvalidInstanceError: this is no Part 10 file.
    """
    if len(head) >= _PREAMBLE and head[128:_PREAMBLE] != b"DICM":
        raise InvalidInstanceError("a part that is no DICOM file")
    values: dict[int, str] = {}
    position = _PREAMBLE
    while True:
        if len(head) < position + 12:
            return None
        group, element, vr, length = struct.unpack_from("<HH2sH", head, position)
        if group != 2:  # noqa: PLR2004 -- the data set begins
            break
        start = position + 8
        if vr in _LONG:
            length, start = struct.unpack_from("<I", head, position + 8)[0], position + 12
        if length > MAXIMUM_META_BYTES:
            raise InvalidInstanceError("the file meta information is damaged")
        if len(head) < start + length:
            return None
        values[element] = bytes(head[start : start + length]).decode("latin-1").strip(" \x00")
        position = start + length
    if not values.get(_SYNTAX):
        raise InvalidInstanceError("the file meta information names no transfer syntax")
    return (
        Meta(
            sop_class_uid=values.get(_SOP_CLASS, ""),
            sop_instance_uid=values.get(_SOP_INSTANCE, ""),
            transfer_syntax_uid=values[_SYNTAX],
        ),
        position,
    )
