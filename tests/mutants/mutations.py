"""Ways to break a DICOM file that know its structure: lengths, VRs, nesting, sizes, bombs, text, UIDs, fragments."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from mutants.anatomy import BIG, DEFLATED, IMPLICIT, LONG, Element

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from mutants.anatomy import File

    Mutation = Callable[[File, random.Random], None]

_VRS = sorted(LONG | {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH"})
_VRS += [b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US", b"zz", b"\x00\x00", b"\xff\xff", b"??"]
_SIZES = (0, 1, 2, 7, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_CHARACTER_SETS = (
    b"",
    b"ISO_IR 6",
    b"ISO_IR 192",
    b"GB18030",
    b"GBK",
    b"ISO_IR 13",
    b"ISO_IR 166",
    b"ISO_IR 999",
    b"\\ISO 2022 IR 87",
    b"\\ISO 2022 IR 149",
    b"\\ISO 2022 IR 58",
    b"ISO 2022 IR 13\\ISO 2022 IR 87",
    b"\\" * 300,
    b"\xff\xfe",
    b"ISO_IR 192\\GBK",
)
_UIDS = (
    b"../../../../outside/evil",
    b"/outside/evil",
    b"..",
    b".",
    b"",
    b"1." * 40,
    b"1.2.3\n",
    b"1..2",
    b"\x00\x00",
    b"01.02",
    b"1.2\\1.3",
    b"\xef\xbc\x91.2",
    b"1.2.3.4.dcm",
    b"~/evil",
    b"1.2;rm -rf",
    b"-1.2",
    b"2.25." + b"9" * 59,
    b"CON",
    b"$(id)",
)
_TEXTS = (
    b"",
    b" ",
    b"nan",
    b"inf",
    b"-1",
    b"1e39",
    b"1e-300",
    b"0",
    b"99999999999999999999",
    b"\\\\\\",
    b"\x00" * 8,
    b"x" * 5000,
    b"A\x1b$B\xff\xff",
    b"\xff\xfe\xfd",
    b"%s%n{0}",
    b"<script>",
    b"1\\2\\3\\4",
    b"\r\nforged",
    b"2026-13-45",
    b"\xf0\x9f\x92\xa9",
)
_PREAMBLES = (
    b"MZ\x90\x00",
    b"\x7fELF",
    b"II*\x00\x08\x00\x00\x00",
    b"<html><script>",
    b"PK\x03\x04",
    b"%PDF-1.7",
    b"\xff" * 128,
)
_UID_TAGS = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
_SIZE_TAGS = (0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)


def mutate(file: File, chance: random.Random) -> list[str]:
    """Break a file in one to three ways; return their names."""
    chosen = chance.choices(sorted(MUTATIONS), k=chance.choice((1, 1, 1, 2, 3)))
    for name in chosen:
        MUTATIONS[name](file, chance)
    return chosen


def _any(file: File, chance: random.Random) -> Element:
    return chance.choice(file.elements)


def _length(file: File, chance: random.Random) -> None:
    element = _any(file, chance)
    true = len(element.value)
    element.length = chance.choice((*_SIZES, true + 1, max(0, true - 1), true * 2, true ^ (1 << chance.randrange(32))))


def _vr(file: File, chance: random.Random) -> None:
    _any(file, chance).raw_vr = chance.choice(_VRS)


def _nesting(file: File, chance: random.Random) -> None:
    pack = f"{file.endian}HH"
    opened = struct.pack(pack, 0x0008, 0x1140) + (b"" if file.syntax == IMPLICIT else b"SQ\x00\x00") + b"\xff" * 4
    opened += struct.pack(pack, 0xFFFE, 0xE000) + b"\xff" * 4
    closed = struct.pack(pack, 0xFFFE, 0xE00D) + bytes(4) + struct.pack(pack, 0xFFFE, 0xE0DD) + bytes(4)
    depth = chance.choice((1, 5, 50, 70, 200, 1000, 5000))
    value = opened * depth + closed * chance.choice((depth, depth, 0, depth - 1, depth + 1))
    sequence = Element(tag=0x00081140, vr=b"SQ", value=struct.pack(pack, 0xFFFE, 0xE000) + b"\xff" * 4 + value)
    sequence.undefined = True
    if chance.random() < 0.8:
        sequence.value += closed
    file.elements.insert(chance.choice((2, len(file.elements) // 2)), sequence)


def _size(file: File, chance: random.Random) -> None:
    value = chance.choice((0, 1, 2, 3, 7, 12, 16, 32, 255, 4000, 20000, 32768, 65535))
    file.put(chance.choice(_SIZE_TAGS), b"US", struct.pack(f"{file.endian}H", value))


def _frames(file: File, chance: random.Random) -> None:
    file.put(0x00280008, b"IS", chance.choice((b"0", b"-1", b"2", b"1000000", b"99999999999", b"", b"x")))


def _photometric(file: File, chance: random.Random) -> None:
    kinds = (b"RGB", b"PALETTE COLOR", b"YBR_FULL_422", b"MONOCHROME1", b"", b"YBR_RCT", b"HSV", b"x" * 100)
    file.put(0x00280004, b"CS", chance.choice(kinds))


def _bomb(file: File, chance: random.Random) -> None:
    """Let compressed pixels grow: a deflated tail, RLE runs, or the size in a codestream."""
    if file.syntax == DEFLATED:
        file.bomb = chance.choice((1, 300))
        return
    pixels = file.find(0x7FE00010)
    if pixels is None:
        return
    if file.syntax.endswith(".5"):
        pixels.value = _fragments(
            [struct.pack("<16I", 2, 64, 5000, *[0] * 13) + b"\x81\x00" * chance.choice((5000, 200000))]
        )
        return
    value = bytearray(pixels.value)
    for marker, offset, width in ((b"\xff\x51", 6, 4), (b"\xff\xf7", 5, 2)):
        at = value.find(marker)
        if at >= 0:
            for place in range(0, 2 * width, width):
                large = chance.choice((1, 0x7FFF, 0xFFFF, 0x9C40, 0xFFFFFFFF)) & ((1 << 8 * width) - 1)
                value[at + offset + place : at + offset + place + width] = large.to_bytes(width, "big")
    pixels.value = bytes(value)


def _codestream(file: File, chance: random.Random) -> None:
    pixels = file.find(0x7FE00010)
    if pixels is not None and pixels.value:
        value = bytearray(pixels.value)
        for _ in range(chance.choice((1, 4, 40))):
            value[chance.randrange(min(len(value), 400))] = chance.randrange(256)
        pixels.value = bytes(value)


def _fragmentation(file: File, chance: random.Random) -> None:
    pixels = file.find(0x7FE00010)
    if pixels is None:
        return
    frame = pixels.value[16:-8]
    ways = (
        [],
        [b""],
        [b"", frame],
        [frame, frame],
        [frame[i : i + 16] for i in range(0, len(frame), 16)],
        [frame[: len(frame) // 4 * 2]],
        [b"\x00"] * 3000,
    )
    pixels.value = _fragments(chance.choice(ways), table=chance.choice((b"", bytes(4), b"\xff" * 8)))
    pixels.undefined = chance.random() < 0.9
    if chance.random() < 0.3:
        pixels.value = pixels.value[:-8]


def _fragments(frames: list[bytes], table: bytes = b"") -> bytes:
    items = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(frame)) + frame for frame in (table, *frames))
    return items + b"\xfe\xff\xdd\xe0" + bytes(4)


def _character_set(file: File, chance: random.Random) -> None:
    file.put(0x00080005, b"CS", chance.choice(_CHARACTER_SETS))
    name = chance.choice(
        (b"Geheimnis^\xff\xfe", b"Geheimnis=\x1b$B;3ED\x1b(B", b"Geheimnis^\x1b\x1b\x1b", b"\x1b$)A\xff", b"=")
    )
    file.put(0x00100010, b"PN", name)


def _preamble(file: File, chance: random.Random) -> None:
    start = chance.choice(_PREAMBLES)
    file.preamble = (start + file.preamble)[:128]


def _no_preamble(file: File, chance: random.Random) -> None:
    file.preamble = b"" if chance.random() < 0.5 else file.preamble[: chance.randrange(128)]


def _meta(file: File, chance: random.Random) -> None:
    value = bytearray(file.meta)
    value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.3:
        value[12:16] = struct.pack("<I", chance.choice(_SIZES) & 0xFFFFFFFF)
    file.meta = bytes(value)


def _syntax(file: File, chance: random.Random) -> None:
    own = file.syntax.encode() + b"\x00" * (len(file.syntax) % 2)
    other = chance.choice(
        (IMPLICIT, BIG, DEFLATED, "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.100", "1.2.3")
    ).encode()
    file.meta = file.meta.replace(own, other[: len(own)].ljust(len(own), b"\x00"))


def _uid(file: File, chance: random.Random) -> None:
    file.put(chance.choice(_UID_TAGS), b"UI", chance.choice(_UIDS))


def _text(file: File, chance: random.Random) -> None:
    element = _any(file, chance)
    if element.vr not in LONG:
        element.value = chance.choice(_TEXTS)
        element.value += b" " * (len(element.value) % 2)


def _remove(file: File, chance: random.Random) -> None:
    file.elements.remove(_any(file, chance))


def _repeat(file: File, chance: random.Random) -> None:
    file.elements.insert(chance.randrange(len(file.elements)), _any(file, chance))


def _order(file: File, chance: random.Random) -> None:
    chance.shuffle(file.elements)


def _cut(file: File, chance: random.Random) -> None:
    file.cut = chance.random()


def _tail(file: File, chance: random.Random) -> None:
    file.tail = chance.choice((b"\x00", bytes(1000), b"\xff" * 1001, chance.randbytes(500)))


def _private(file: File, chance: random.Random) -> None:
    for number in range(chance.choice((1, 2000))):
        file.elements.insert(
            1, Element(tag=0x00090010 + number, vr=b"UN", value=chance.randbytes(chance.randrange(20)))
        )


def _bits(file: File, chance: random.Random) -> None:
    element = _any(file, chance)
    if element.value:
        value = bytearray(element.value)
        for _ in range(chance.choice((1, 8))):
            value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        element.value = bytes(value)


MUTATIONS: dict[str, Mutation] = {
    function.__name__.lstrip("_"): function
    for function in (
        _length,
        _vr,
        _nesting,
        _size,
        _frames,
        _photometric,
        _bomb,
        _codestream,
        _fragmentation,
        _character_set,
        _preamble,
        _no_preamble,
        _meta,
        _syntax,
        _uid,
        _text,
        _remove,
        _repeat,
        _order,
        _cut,
        _tail,
        _private,
        _bits,
    )
}
