from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_nodes.multipart import MAXIMUM_HEADER_BYTES, MultipartError, MultipartReader, boundary_of, part_type_of


class Part:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.data = bytearray()
        self.end = ""

    def write(self, data: memoryview) -> None:
        self.data += data

    def finish(self) -> None:
        self.end = "finished"

    def discard(self) -> None:
        self.end = "discarded"


def read(body: bytes, *, step: int = 1 << 20) -> tuple[list[Part], bool]:
    parts: list[Part] = []

    def begin(headers: dict[str, str]) -> Part:
        parts.append(Part(headers))
        return parts[-1]

    reader = MultipartReader("b", begin)
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    reader.close()
    return parts, reader.complete


def test_parts_come_out_with_their_headers() -> None:
    parts, complete = read(
        b"preamble\r\n--b\r\nContent-Type: a/b\r\n\r\none\r\n--b\r\nX: 1\r\n\r\ntwo\r\n--b--\r\nepilogue"
    )
    assert complete
    assert [(part.headers, bytes(part.data), part.end) for part in parts] == [
        ({"content-type": "a/b"}, b"one", "finished"),
        ({"x": "1"}, b"two", "finished"),
    ]


def test_the_first_boundary_may_come_at_once_and_a_part_may_be_empty() -> None:
    parts, complete = read(b"--b\r\nA: 1\r\n\r\n\r\n--b--")
    assert complete
    assert [bytes(part.data) for part in parts] == [b""]


def test_what_looks_like_a_boundary_in_the_data_is_data() -> None:
    parts, _ = read(b"--b\r\nA: 1\r\n\r\nx\r\n--a\r\n-b\n--b\r\n--b--")
    assert [bytes(part.data) for part in parts] == [b"x\r\n--a\r\n-b\n--b"]


def test_a_part_that_breaks_off_is_discarded() -> None:
    parts, complete = read(b"--b\r\nA: 1\r\n\r\nhalf a par")
    assert not complete
    assert parts[0].end == "discarded"


@pytest.mark.parametrize("head", [b"A: " + b"x" * (MAXIMUM_HEADER_BYTES + 9), b"no header\r\n\r\n"])
def test_a_header_that_is_none_is_an_error(head: bytes) -> None:
    with pytest.raises(MultipartError):
        read(b"--b\r\n" + head)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "multipart/mixed; boundary=x", "multipart/related", "multipart/related; boundary=\u00fc"],
)
def test_a_content_type_without_a_boundary_is_an_error(content_type: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(content_type)


def test_boundary_and_type_are_read_with_and_without_quotes() -> None:
    assert boundary_of('Multipart/Related; type="application/dicom"; boundary="a b:c"') == "a b:c"
    assert boundary_of("multipart/related;boundary=abc;type=application/dicom") == "abc"
    assert part_type_of('multipart/related; type="Application/DICOM"; boundary=x') == "application/dicom"


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=4), st.integers(1, 60))
def test_however_the_body_is_cut_the_parts_are_the_same(contents: list[bytes], step: int) -> None:
    contents = [content.replace(b"\r\n--b", b"") for content in contents]
    body = b"".join(b"\r\n--b\r\nA: 1\r\n\r\n" + content for content in contents) + b"\r\n--b--"
    parts, complete = read(body, step=step)
    assert complete
    assert [bytes(part.data) for part in parts] == contents


def test_another_content_type_has_no_part_type() -> None:
    assert part_type_of("application/dicom+json") is None
    assert part_type_of("multipart/related; boundary=x") == ""
