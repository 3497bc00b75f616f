"""High-Throughput JPEG 2000 (ISO/IEC 15444-15), encoded and decoded by OpenJPH's programs."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate

from tests.require import require_tool

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

_SIZ, _SSIZ = b"\xff\x51", 40
"""Marker of image and tile size; how far behind it the first component's depth lies (ISO/IEC 15444-1 A.5.1)."""
_SIGNED = 0x80


def compress(dataset: Dataset, syntax: str, *options: str, bits: int = 0) -> None:
    """Encode the native pixels of an image in place, losslessly unless the options say otherwise.

    Args:
        dataset: one frame, grey or RGB of 8 bits.
        syntax: one of the three transfer syntaxes.
        options: of `ojph_compress`.
        bits: depth of the codestream; without it Bits Stored.
    """
    pixels = np.asarray(dataset.pixel_array)
    chosen = options or ("-reversible", "true")
    depth = bits or dataset.BitsStored
    code = _colour(pixels, chosen) if pixels.ndim == 3 else _grey(pixels, depth, chosen)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([code])
    dataset["PixelData"].VR = "OB"


def expanded(code: bytes, *, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Decode a codestream of unsigned grey values, 9 to 16 bits, by OpenJPH."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.j2c").write_bytes(code)
        _run("ojph_expand", folder, "-i", "in.j2c", "-o", "out.yuv")
        return np.fromfile(Path(folder) / "out.yuv", dtype="<u2").reshape(shape)


def _grey(pixels: NDArray[Any], bits: int, options: tuple[str, ...]) -> bytes:
    signed = pixels.dtype.kind == "i"
    # The program reads signed values wrongly. Unsigned ones are shifted by half their range before they are coded
    # (ISO/IEC 15444-1 G.1), so the codestream of signed ones is that of the shifted ones, except for what it claims.
    values = pixels.astype(np.int64) + ((1 << bits - 1) if signed else 0)
    rows, columns = pixels.shape
    size = ("-dims", f"{{{columns},{rows}}}", "-num_comps", "1", "-signed", "false", "-bit_depth", str(bits))
    code = bytearray(
        _encoded("in.yuv", values.astype("u1" if bits <= 8 else "<u2").tobytes(), *size, "-downsamp", "{1,1}", *options)
    )
    claim = code.index(_SIZ) + _SSIZ
    assert code[claim] == bits - 1
    if signed:
        code[claim] |= _SIGNED
    return bytes(code)


def _colour(pixels: NDArray[Any], options: tuple[str, ...]) -> bytes:
    rows, columns, _ = pixels.shape
    return _encoded("in.ppm", b"P6 %d %d 255\n" % (columns, rows) + pixels.astype("u1").tobytes(), *options)


def _encoded(name: str, content: bytes, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        _run("ojph_compress", folder, "-i", name, "-o", "out.j2c", *options)
        return (Path(folder) / "out.j2c").read_bytes()


def _run(program: str, folder: str, *arguments: str) -> None:
    done = subprocess.run(
        [require_tool(program), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
