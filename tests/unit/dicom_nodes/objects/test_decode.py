from __future__ import annotations

import io
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import gdcm
import numpy as np
import pytest
from PIL import Image as Picture
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicom_nodes.objects import decode
from dicom_nodes.objects.read import read_image
from service.errors import UndecodableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]

GRID = np.random.default_rng(1).integers(0, 4096, size=(75, 70), dtype=np.uint16)
CLAIM = {"BitsStored": 12, "HighBit": 11}


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_lossless_codecs_give_the_stored_values(source: Make, saved: Save, syntax: str) -> None:
    dataset = source(GRID, **CLAIM)
    dataset.compress(syntax, generate_instance_uid=False)
    assert read_image(saved(dataset)).image.values.tolist() == GRID.tolist()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_signed_values_survive_each_codec(source: Make, saved: Save, syntax: str) -> None:
    signed = (GRID.astype(np.int16) - 2048).astype(np.int16)
    dataset = source(signed, **CLAIM)
    if syntax == JPEGLSLossless:
        # JPEG-LS codes bits, not signs (PS3.5 8.2.3): what it holds is the stored word.
        dataset.PixelData = (signed & 0xFFF).astype(np.uint16).tobytes()
        dataset.PixelRepresentation = 0
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.PixelRepresentation = 1
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    assert read_image(saved(dataset)).image.values.tolist() == signed.tolist()


def test_overlay_bits_in_rle_are_masked(source: Make, saved: Save) -> None:
    dataset = source(GRID | 0x1000, **CLAIM)
    dataset.compress(RLELossless, generate_instance_uid=False)
    assert read_image(saved(dataset)).image.values.tolist() == GRID.tolist()


def test_jpeg_lossless_is_left_to_gdcm(source: Make, saved: Save, tmp_path: Path) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(saved(source(GRID, **CLAIM))))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert read_image(tmp_path / "lossless.dcm").image.values.tolist() == GRID.tolist()


def test_colour_jpeg_becomes_luminance(source: Make, saved: Save) -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    dataset = source(flat, PhotometricInterpretation="YBR_FULL_422")
    encoded = io.BytesIO()
    Picture.fromarray(flat).save(encoded, "JPEG", quality=95, subsampling="4:2:2")
    _encapsulated(dataset, encoded.getvalue(), JPEGBaseline8Bit)
    expected = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert np.allclose(read_image(saved(dataset)).image.values, expected, atol=2)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_half_of_a_codestream_is_undecodable(source: Make, saved: Save, syntax: str) -> None:
    dataset = source(GRID, **CLAIM)
    dataset.compress(syntax, generate_instance_uid=False)
    frame = bytes(dataset.PixelData)[16:]
    _encapsulated(dataset, frame[: len(frame) // 4], syntax)
    with pytest.raises(UndecodableError):
        read_image(saved(dataset))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless, JPEGBaseline8Bit, HTJ2KLossless])
def test_noise_in_place_of_a_codestream_is_undecodable(source: Make, saved: Save, syntax: str) -> None:
    dataset = source(GRID, **CLAIM)
    _encapsulated(dataset, np.random.default_rng(2).bytes(500), syntax)
    with pytest.raises(UndecodableError):
        read_image(saved(dataset))


def test_a_transfer_syntax_without_decoder_is_named(source: Make, saved: Save) -> None:
    dataset = source(GRID, **CLAIM)
    _encapsulated(dataset, b"\0" * 100, "1.2.840.10008.1.2.4.100")
    with pytest.raises(UndecodableError, match=r"No decoder reads .*MPEG2"):
        read_image(saved(dataset))


def test_a_codestream_larger_than_its_header_is_refused(source: Make, saved: Save) -> None:
    dataset = source(GRID, **CLAIM)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.Rows, dataset.Columns = 10, 10
    with pytest.raises(UndecodableError):
        read_image(saved(dataset))


def test_a_codestream_that_swells_stops_at_the_memory_limit(source: Make, saved: Save) -> None:
    dataset = source(np.zeros((64, 64), dtype=np.uint16))
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    frame = bytearray(bytes(dataset.PixelData)[16:])
    size = frame.index(b"\xff\x51") + 6
    for offset in (0, 4, 16, 20):
        frame[size + offset : size + offset + 4] = (40000).to_bytes(4, "big")
    _encapsulated(dataset, bytes(frame), JPEG2000Lossless)
    with pytest.raises(UndecodableError):
        read_image(saved(dataset))


def test_a_decode_that_hangs_is_ended(source: Make, saved: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = source(GRID, **CLAIM)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    monkeypatch.setattr(decode, "WALL_S", 0.01)
    with pytest.raises(UndecodableError, match="took more than"):
        read_image(saved(dataset))


def test_the_next_decoder_stands_by_ends_with_us_and_is_not_missed(source: Make, saved: Save) -> None:
    dataset = source(GRID, **CLAIM)
    dataset.compress(RLELossless, generate_instance_uid=False)
    path = saved(dataset)
    for _ in range(2):
        assert read_image(path).image.values.tolist() == GRID.tolist()
        (child,) = decode._standby
        assert child.poll() is None
        assert child.communicate(timeout=60) == (b"", None)
        assert child.returncode == 0


def test_the_child_that_decodes_never_imports_torch() -> None:
    code = "import sys, dicom_nodes.objects.decode_child; print('torch' in sys.modules, 'scipy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]


def _encapsulated(dataset: FileDataset, frame: bytes, syntax: Any) -> None:
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


def test_signed_bits_in_a_wider_jpeg_ls_are_sign_extended(source: Make, saved: Save) -> None:
    """As dcmtk writes them: 16 bits of precision, 12 of them stored, two's complement without its upper bits."""
    signed = GRID.astype(np.int16) - 2048
    dataset = source((signed & 0xFFF).astype(np.uint16))
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 1
    assert read_image(saved(dataset)).image.values.tolist() == signed.tolist()


def test_jpeg_extended_of_12_bits_is_read(source: Make, saved: Save, tmp_path: Path) -> None:
    if not shutil.which("dcmcjpeg"):
        pytest.skip("dcmcjpeg is absent: install dcmtk")
    smooth = np.tile(np.linspace(0, 4095, 64), (64, 1)).astype(np.uint16)
    encoded, decoded = tmp_path / "encoded.dcm", tmp_path / "decoded.dcm"
    plain = saved(source(smooth, **CLAIM))
    subprocess.run(["dcmcjpeg", "+ee", str(plain), str(encoded)], check=True, capture_output=True)
    subprocess.run(["dcmdjpeg", str(encoded), str(decoded)], check=True, capture_output=True)
    values = read_image(encoded).image.values
    assert values.tolist() == read_image(decoded).image.values.tolist()
    assert np.corrcoef(values.ravel(), smooth.ravel())[0, 1] > 0.999
