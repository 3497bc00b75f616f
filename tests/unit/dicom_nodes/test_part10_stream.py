from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_nodes.headers import file_meta_information
from dicom_nodes.part10_stream import MAXIMUM_META_BYTES, Meta, Part10Stream
from dicom_nodes.status import SUCCESS, Answer
from service.errors import InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE_META = file_meta_information(
    sop_class_uid="1.2.1", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.1", source_ae="PACS"
)


class Kept:
    def __init__(self) -> None:
        self.data = bytearray()
        self.discarded = False

    def write(self, data: memoryview) -> None:
        self.data += data

    def finish(self) -> Answer:
        return Answer(status=SUCCESS)

    def discard(self) -> None:
        self.discarded = True


def stream(pieces: Iterable[bytes], *, breaks_off: bool = False) -> tuple[Kept, Meta | None, Answer | Exception | None]:
    kept, heard = Kept(), []
    part = Part10Stream(lambda _meta: kept, lambda meta, result: heard.append((meta, result)))
    for piece in pieces:
        part.write(memoryview(piece))
    if breaks_off:
        part.discard()
        return kept, None, None
    part.finish()
    return kept, *heard[0]


@given(st.integers(1, 400), st.binary(min_size=12, max_size=500))
def test_the_data_set_goes_on_however_the_file_is_cut(step: int, data: bytes) -> None:
    data = b"\x08\x00\x05\x00" + data
    whole = FILE_META + data
    kept, meta, result = stream(whole[start : start + step] for start in range(0, len(whole), step))
    assert bytes(kept.data) == data
    assert meta == Meta(sop_class_uid="1.2.1", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.1")
    assert result == Answer(status=SUCCESS)


def test_a_large_first_piece_is_taken() -> None:
    data = b"\x08\x00\x05\x00" + bytes(4 * MAXIMUM_META_BYTES)
    kept, _, _ = stream([FILE_META + data])
    assert bytes(kept.data) == data


def test_a_file_that_breaks_off_is_discarded() -> None:
    kept, _, _ = stream([FILE_META + b"\x08\x00\x05\x00" + bytes(100)], breaks_off=True)
    assert kept.discarded


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no DICOM",
        bytes(200),
        bytes(128) + b"DICM",
        bytes(128) + b"DICM" + b"\x02\x00\x01\x00OB\x00\x00\xff\xff\xff\xff" + bytes(100),
        bytes(128) + b"DICM" + b"\x08\x00\x05\x00CS\x02\x00AB" + bytes(100),
        bytes(128) + b"DICM" + (b"\x02\x00\x01\x00OB\x00\x00\x00\x10\x00\x00" + bytes(4096)) * 20,
    ],
)
def test_what_is_no_part_10_file_is_told_so(content: bytes) -> None:
    kept, meta, result = stream([content])
    assert isinstance(result, InvalidInstanceError)
    assert meta is None
    assert not kept.data


def test_a_head_in_single_bytes_is_read_once_and_not_again_with_every_byte() -> None:
    """A peer chooses the size of its pieces: 64 KB in single bytes took minutes of processor time."""
    head = bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x0102, b"LO", 0) * 2000 + FILE_META[144:]
    begun = time.process_time()
    stream([head[:-1]])
    between = time.process_time()
    kept, meta, _ = stream([bytes([byte]) for byte in head] + [b"a whole data set"])
    assert meta is not None
    assert kept.data == b"a whole data set"
    assert time.process_time() - between < 100 * (between - begun) + 0.5
