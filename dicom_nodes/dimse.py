"""DIMSE command sets (PS3.7 section 6.3 and annex E): taken apart and put together by hand.

They are short and flat; a general DICOM reader and writer takes a hundred times as long for them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

C_STORE, C_ECHO, N_EVENT_REPORT, N_CREATE = 0x0001, 0x0030, 0x0100, 0x0140
C_CANCEL = 0x0FFF
RESPONSE = 0x8000
"""Added to a request's command field in its response."""
NO_DATA_SET, DATA_SET = 0x0101, 0x0001

AFFECTED_SOP_CLASS, REQUESTED_SOP_CLASS = 0x0002, 0x0003
COMMAND_FIELD, MESSAGE_ID, RESPONDS_TO = 0x0100, 0x0110, 0x0120
PRIORITY, DATA_SET_TYPE, STATUS, ERROR_COMMENT = 0x0700, 0x0800, 0x0900, 0x0902
AFFECTED_SOP_INSTANCE, REQUESTED_SOP_INSTANCE = 0x1000, 0x1001
EVENT_TYPE = 0x1002

_COMMAND, _LAST = 0x01, 0x02
_DATA_PDU = 0x04
_ITEM_HEADER_BYTES = 6
_LONGEST_FRAGMENT_BYTES = 1 << 14


class ProtocolError(Exception):
    """The peer sent what PS3.7 or PS3.8 does not allow."""


def encode_command(elements: Mapping[int, int | str]) -> bytes:
    """Encode a command set: numbers as US, texts as they are; implicit VR little endian (PS3.7 section 6.3.1)."""
    body = b"".join(_element(element, _value(element, value)) for element, value in sorted(elements.items()))
    return _element(0x0000, struct.pack("<I", len(body))) + body


def split_command(command: bytes | bytearray) -> dict[int, bytes]:
    """Split a command set.

    Raises:
        ProtocolError: it is none.
    """
    elements: dict[int, bytes] = {}
    position = 0
    while position + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHI", command, position)
        value = bytes(command[position + 8 : position + 8 + length])
        if group != 0 or len(value) != length:
            raise ProtocolError("a command set that is none")
        elements[element] = value
        position += 8 + length
    return elements


def number(elements: Mapping[int, bytes], element: int) -> int:
    """Return an element of VR US.

    Raises:
        ProtocolError: it is missing, or has not two bytes.
    """
    value = elements.get(element, b"")
    if len(value) != 2:  # noqa: PLR2004
        raise ProtocolError("a command set without one of its numbers")
    return int.from_bytes(value, "little")


def text(elements: Mapping[int, bytes], element: int) -> str:
    """Return an element of VR UI, unchecked; empty when it is missing."""
    return elements.get(element, b"").decode("latin-1").rstrip(" \x00")


def command_pdus(command: bytes, context_id: int, *, longest_pdu_bytes: int = 0) -> bytes:
    """Put a command set into P-DATA-TF PDUs that the peer takes (PS3.8 section 9.3.5).

    Args:
        command: encoded command set.
        context_id: of the presentation context.
        longest_pdu_bytes: the maximum length that the peer announced; 0 is no limit.
    """
    longest = min(longest_pdu_bytes or _LONGEST_FRAGMENT_BYTES, _LONGEST_FRAGMENT_BYTES)
    size = max(2, longest - _ITEM_HEADER_BYTES)
    pieces = [command[start : start + size] for start in range(0, len(command), size)]
    last = len(pieces) - 1
    return b"".join(
        data_header(len(piece), context_id, _COMMAND | (_LAST if index == last else 0)) + piece
        for index, piece in enumerate(pieces)
    )


def data_header(count: int, context_id: int, control: int) -> bytes:
    """Header of a P-DATA-TF PDU with one presentation data value of `count` bytes (PS3.8 table 9-22)."""
    return struct.pack(">BBLLBB", _DATA_PDU, 0, count + _ITEM_HEADER_BYTES, count + 2, context_id, control)


def _element(number_: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number_, len(value)) + value


def _value(element: int, value: int | str) -> bytes:
    if isinstance(value, int):
        return struct.pack("<H", value)
    encoded = value.encode("ascii", "replace")
    padding = b" " if element == ERROR_COMMENT else b"\x00"
    return encoded + padding * (len(encoded) % 2)
