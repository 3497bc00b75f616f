from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_nodes.objects.read import read_header, read_image
from service.errors import InvalidInstanceError, NotEligibleError, UndecodableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import FileDataset

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]

RAMP = np.array([[0, 100, 200, 300], [400, 500, 600, 700]], dtype=np.uint16)


def test_several_frames_are_not_eligible(source: Make, saved: Save) -> None:
    with pytest.raises(NotEligibleError, match="3 frames"):
        read_image(saved(source(RAMP, NumberOfFrames=3)))


def test_an_instance_without_pixels_is_not_eligible(source: Make, saved: Save) -> None:
    with pytest.raises(NotEligibleError, match="no image pixels"):
        read_image(saved(source(RAMP, PixelData=None)))
    with pytest.raises(NotEligibleError, match="no image pixels"):
        read_image(saved(source(RAMP, PixelData=None, Rows=None, Columns=None)))


def test_truncated_pixels_are_undecodable(source: Make, saved: Save) -> None:
    with pytest.raises(UndecodableError, match="truncated: 14 of 16 bytes"):
        read_image(saved(source(RAMP, PixelData=RAMP.tobytes()[:-2])))


def test_more_pixels_than_the_limit_are_refused_before_decoding(source: Make, saved: Save) -> None:
    with pytest.raises(UndecodableError, match="limit"):
        read_image(saved(source(RAMP, Rows=60000, Columns=60000)))


def test_a_value_that_claims_four_gigabytes_is_no_danger(source: Make, saved: Save) -> None:
    path = saved(source(RAMP))
    data = path.read_bytes()
    marker = data.index(b"\xe0\x7f\x10\x00OW\x00\x00")
    path.write_bytes(data[: marker + 8] + struct.pack("<I", 0xFFFFFFF0) + data[marker + 12 :] + b"\0" * 100)
    assert read_image(path).image.values.tolist() == RAMP.tolist()


def test_a_deflate_bomb_is_refused(source: Make, saved: Save) -> None:
    dataset = source(RAMP)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = saved(dataset)
    length = 132 + 12 + int(read_file_meta_info(path).FileMetaInformationGroupLength)
    data = path.read_bytes()
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = bomb.compress(zlib.decompress(data[length:], -zlib.MAX_WBITS))
    deflated += b"".join(bomb.compress(bytes(2**24)) for _ in range(20)) + bomb.flush()
    path.write_bytes(data[:length] + deflated)
    assert path.stat().st_size < 2**20
    with pytest.raises(InvalidInstanceError, match="inflates"):
        read_header(path)


def test_nesting_without_end_is_refused(source: Make, saved: Save) -> None:
    path = saved(source(RAMP))
    data = path.read_bytes()
    nested = (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 20000
    marker = data.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(data[:marker] + nested + data[marker:])
    with pytest.raises(InvalidInstanceError):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 200, b"\0" * 128 + b"DICM", b"\xff" * 500])
def test_a_file_that_is_no_dicom_is_invalid(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InvalidInstanceError):
        read_header(path)


def test_a_missing_file_is_invalid_and_its_name_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInstanceError) as caught:
        read_image(tmp_path / "Doe^Jane.dcm")
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_an_instance_without_identity_is_invalid(source: Make, tmp_path: Path, keyword: str) -> None:
    dataset = source(RAMP, **{keyword: None})
    dataset.save_as(tmp_path / "x.dcm")
    with pytest.raises(InvalidInstanceError, match=keyword):
        read_header(tmp_path / "x.dcm")


def test_malformed_real_files_are_answered_by_their_fault(shared_dicom: Path) -> None:
    with pytest.raises(UndecodableError, match="truncated"):
        read_image(shared_dicom / "malformed" / "MR_truncated.dcm")
    with pytest.raises(InvalidInstanceError):
        read_image(shared_dicom / "malformed" / "meta_missing_tsyntax.dcm")


def test_a_table_with_fewer_entries_than_it_says_is_refused(source: Make, saved: Save) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.add_new("LUTData", "OW", np.arange(100, dtype="<u2").tobytes())
    with pytest.raises(NotEligibleError, match="fewer entries"):
        read_image(saved(source(RAMP, VOILUTSequence=[table])))


def test_a_high_bit_outside_of_the_pixel_is_refused(source: Make, saved: Save) -> None:
    with pytest.raises(NotEligibleError, match="High Bit 200"):
        read_image(saved(source(RAMP, HighBit=200)))


def test_floating_point_pixels_are_refused_in_words(source: Make, saved: Save) -> None:
    dataset = source(RAMP, PixelData=None, BitsStored=None, HighBit=None, BitsAllocated=32)
    dataset.FloatPixelData = RAMP.astype("<f4").tobytes()
    with pytest.raises(NotEligibleError, match="no integers"):
        read_image(saved(dataset))


def test_a_sequence_that_never_ends_is_not_taken_for_a_broken_disk(source: Make, saved: Save) -> None:
    path = saved(source(RAMP))
    data = path.read_bytes()
    at = data.index(b"\x10\x00\x10\x00PN")
    opened = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(data[:at] + opened + data[at:])
    with pytest.raises(InvalidInstanceError, match="cut off"):
        read_header(path)
    path.write_bytes(data[:at] + opened * 2000 + data[at:])
    with pytest.raises(InvalidInstanceError, match="nests"):
        read_header(path)


@pytest.mark.parametrize(("slope", "intercept"), [("1e39", "0"), ("1", "1e39"), ("1e308", "-1e308")])
def test_a_rescale_beyond_all_numbers_is_refused(source: Make, saved: Save, slope: str, intercept: str) -> None:
    with pytest.raises(NotEligibleError, match="not finite"):
        read_image(saved(source(RAMP, RescaleSlope=slope, RescaleIntercept=intercept)))
