"""A DICOM file taken apart into the elements of its first level, to be put together again with lies in it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

IMPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""VRs with a length of four bytes."""
_META = 132


@dataclass(kw_only=True)
class Element:
    """An element of the first level, as it lies in the file."""

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None
    """What its header claims; None is the truth."""
    undefined: bool = False
    raw_vr: bytes = b""
    """What its header says its VR is; empty is the truth."""


@dataclass(kw_only=True)
class File:
    """A file taken apart."""

    syntax: str
    preamble: bytes
    meta: bytes
    elements: list[Element]
    tail: bytes = b""
    cut: float = 1.0
    """How much of the data set is there."""
    bomb: int = 0
    """MB of zeros behind a deflated data set."""

    @property
    def endian(self) -> str:
        return ">" if self.syntax == BIG else "<"

    def find(self, tag: int) -> Element | None:
        return next((element for element in self.elements if element.tag == tag), None)

    def put(self, tag: int, vr: bytes, value: bytes) -> None:
        """Replace an element, or insert it in its place."""
        found = self.find(tag)
        if found is not None:
            found.value, found.length, found.undefined = value + b" " * (len(value) % 2), None, False
            return
        place = next((i for i, element in enumerate(self.elements) if element.tag > tag), len(self.elements))
        self.elements.insert(place, Element(tag=tag, vr=vr, value=value + b" " * (len(value) % 2)))

    def data(self) -> bytes:
        """Put it together again."""
        body = b"".join(self._encoded(element) for element in self.elements) + self.tail
        body = body[: int(len(body) * self.cut)]
        if self.syntax == DEFLATED:
            deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
            body = deflater.compress(body) + b"".join(deflater.compress(bytes(1 << 20)) for _ in range(self.bomb))
            body += deflater.flush()
        return self.preamble + self.meta + body

    def _encoded(self, element: Element) -> bytes:
        length = element.length if element.length is not None else len(element.value)
        if element.undefined:
            length = 0xFFFFFFFF
        head = struct.pack(f"{self.endian}HH", element.tag >> 16, element.tag & 0xFFFF)
        if self.syntax == IMPLICIT:
            return head + struct.pack("<I", length & 0xFFFFFFFF) + element.value
        vr = element.raw_vr or element.vr
        if vr in LONG:
            return head + vr + b"\x00\x00" + struct.pack(f"{self.endian}I", length & 0xFFFFFFFF) + element.value
        return head + vr + struct.pack(f"{self.endian}H", length & 0xFFFF) + element.value


def take_apart(data: bytes, syntax: str, vrs: dict[int, bytes]) -> File:
    """Take one of the originals apart; `vrs` says the VR of each tag where the encoding does not."""
    end = _META + 12 + struct.unpack_from("<I", data, _META + 8)[0]
    body = zlib.decompress(data[end:], -zlib.MAX_WBITS) if syntax == DEFLATED else data[end:]
    endian = ">" if syntax == BIG else "<"
    elements: list[Element] = []
    position = 0
    while position + 8 <= len(body):
        group, number = struct.unpack_from(f"{endian}HH", body, position)
        tag = group << 16 | number
        if syntax == IMPLICIT:
            vr, start = vrs[tag], position + 8
            length = struct.unpack_from("<I", body, position + 4)[0]
        else:
            vr = body[position + 4 : position + 6]
            start = position + (12 if vr in LONG else 8)
            length = struct.unpack_from(
                f"{endian}{'I' if vr in LONG else 'H'}", body, start - (4 if vr in LONG else 2)
            )[0]
        undefined = length == 0xFFFFFFFF
        stop = len(body) if undefined else start + length  # only the pixel data of these files is of undefined length
        elements.append(Element(tag=tag, vr=vr, value=body[start:stop], undefined=undefined))
        position = stop
    return File(syntax=syntax, preamble=data[:128], meta=data[128:end], elements=elements)
