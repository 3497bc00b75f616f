"""Reads the few attributes of a received data set that storing it takes: bounded, and never its pixels.

A full DICOM reader would follow whatever lengths and nesting a peer wrote; this one skips, counts and stops.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from dicom_nodes.contexts import BIG_ENDIAN, DEFLATED, IMPLICIT_LITTLE_ENDIAN
from dicom_nodes.objects.identity import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    is_our_equipment,
)
from service.errors import InvalidInstanceError

if TYPE_CHECKING:
    from pathlib import Path

MAXIMUM_ELEMENTS = 100_000
MAXIMUM_DEPTH = 256
"""Sequences and items; each takes a few bytes here. Who reads more of the file has limits of its own."""
MAXIMUM_VALUE_BYTES = 1024
INFLATED_BYTES = 1 << 20

_SOP_CLASS, _SOP_INSTANCE, _MODALITY = 0x00080016, 0x00080018, 0x00080060
_MANUFACTURER, _MODEL, _STUDY, _SERIES = 0x00080070, 0x00081090, 0x0020000D, 0x0020000E
_WANTED = frozenset({_SOP_CLASS, _SOP_INSTANCE, _MODALITY, _MANUFACTURER, _MODEL, _STUDY, _SERIES})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH = 64


@dataclass(frozen=True, kw_only=True)
class Header:
    """What storing an instance takes. No patient data beyond UIDs."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    ours: bool
    """True when the equipment module says that Pellucid made it."""


def read_header(path: Path, *, offset: int, transfer_syntax_uid: str) -> Header:
    """Read the header of the data set that begins at `offset` of a file.

    Raises:
        InvalidInstanceError: it is no data set in this transfer syntax, or a UID is missing or malformed.
    """
    with path.open("rb") as file:
        file.seek(offset)
        source: IO[bytes] = _inflated(file) if transfer_syntax_uid == DEFLATED else file
        size = source.seek(0, io.SEEK_END)
        source.seek(0 if source is not file else offset)
        values = _scan(
            _Source(source, size=size, endian=">" if transfer_syntax_uid == BIG_ENDIAN else "<"),
            implicit=transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN,
        )
    return Header(
        sop_class_uid=_uid(values, _SOP_CLASS, "SOP Class UID"),
        sop_instance_uid=_uid(values, _SOP_INSTANCE, "SOP Instance UID"),
        study_instance_uid=_uid(values, _STUDY, "Study Instance UID"),
        series_instance_uid=_uid(values, _SERIES, "Series Instance UID"),
        modality=_text(values, _MODALITY)[:16],
        ours=is_our_equipment(_text(values, _MANUFACTURER), _text(values, _MODEL)),
    )


def is_uid(value: str) -> bool:
    """Tell whether a text is a UID by PS3.5 section 9: digits and dots, 1 to 64 characters.

    Leading zeros of a component are let through: devices in use write them.
    """
    return len(value) <= _UID_LENGTH and _UID.fullmatch(value) is not None


def file_meta_information(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str
) -> bytes:
    """Return preamble, prefix and file meta information (PS3.10 section 7.1)."""
    body = b"".join(
        [
            struct.pack("<HH2sHI", 2, 0x0001, b"OB", 0, 2) + b"\x00\x01",
            _short(0x0002, b"UI", sop_class_uid),
            _short(0x0003, b"UI", sop_instance_uid),
            _short(0x0010, b"UI", transfer_syntax_uid),
            _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _short(0x0016, b"AE", source_ae),
        ]
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


def _short(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    value += (b"\x00" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _inflated(file: IO[bytes]) -> IO[bytes]:
    """Inflate the first MB: the header lies in it, and a bomb grows no further."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return io.BytesIO(inflater.decompress(file.read(INFLATED_BYTES), INFLATED_BYTES))
    except zlib.error:
        raise InvalidInstanceError("the deflated data set is damaged") from None


class _Source:
    """Reads forward, counts elements, and never past the end."""

    def __init__(self, file: IO[bytes], *, size: int, endian: str) -> None:
        self._file = file
        self._left = size - file.tell()
        self._elements = 0
        self._tag = struct.Struct(f"{endian}HH")
        self._u16 = struct.Struct(f"{endian}H")
        self._u32 = struct.Struct(f"{endian}I")

    @property
    def at_end(self) -> bool:
        return self._left == 0

    def read(self, count: int) -> bytes:
        self._take(count)
        return self._file.read(count)

    def skip(self, count: int) -> None:
        self._take(count)
        self._file.seek(count, io.SEEK_CUR)

    def element(self, *, implicit: bool) -> tuple[int, bytes, int]:
        """Read tag, VR (empty when there is none) and length."""
        self._elements += 1
        if self._elements > MAXIMUM_ELEMENTS:
            raise InvalidInstanceError("too many elements before the Series Instance UID")
        head = self.read(8)
        group, number = self._tag.unpack_from(head)
        tag = group << 16 | number
        vr = head[4:6]
        # A VR that is none: some devices write implicit elements among explicit ones.
        if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):  # noqa: PLR2004
            return tag, b"", self._u32.unpack_from(head, 4)[0]
        if vr in _LONG:
            return tag, vr, self._u32.unpack(self.read(4))[0]
        return tag, vr, self._u16.unpack_from(head, 6)[0]

    def _take(self, count: int) -> None:
        if count > self._left:
            raise InvalidInstanceError("the data set ends early, or is not in its transfer syntax")
        self._left -= count


def _scan(source: _Source, *, implicit: bool) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while not source.at_end:
        tag, vr, length = source.element(implicit=implicit)
        if tag > _SERIES:
            break
        if tag in _WANTED:
            if length > MAXIMUM_VALUE_BYTES:
                raise InvalidInstanceError(f"element {tag:08X} is longer than its value can be")
            found[tag] = source.read(length)
        elif length == _UNDEFINED:
            _skip_sequence(source, implicit=implicit or vr == b"UN")
        else:
            source.skip(length)
    return found


def _skip_sequence(source: _Source, *, implicit: bool) -> None:
    """Pass over a value of undefined length; inside UN everything is implicit (PS3.5 section 6.2.2)."""
    stack = [(True, implicit)]  # (between items, implicit)
    while stack:
        if len(stack) > MAXIMUM_DEPTH:
            raise InvalidInstanceError("sequences are nested too deeply")
        between_items, implicit = stack[-1]
        tag, vr, length = source.element(implicit=implicit)
        if tag in (_SEQUENCE_END, _ITEM_END):
            stack.pop()
        elif between_items and tag != _ITEM:
            raise InvalidInstanceError("a sequence holds something else than items")
        elif length == _UNDEFINED:
            stack.append((not between_items, implicit or vr == b"UN"))
        else:
            source.skip(length)


def _text(values: dict[int, bytes], tag: int) -> str:
    return values.get(tag, b"").decode("latin-1").strip(" \x00")


def _uid(values: dict[int, bytes], tag: int, name: str) -> str:
    value = _text(values, tag)
    if not is_uid(value):
        raise InvalidInstanceError(f"{name} is {'malformed' if value else 'missing'}")
    return value
