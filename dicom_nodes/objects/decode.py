"""From a file to stored pixel values: native pixels here, compressed ones in a disposable child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID

from dicom_nodes.objects.attributes import integer, text
from dicom_nodes.objects.part10 import read_part10
from service.errors import NotEligibleError, UndecodableError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

MAX_PIXELS = 100_000_000
WALL_S = 60.0
"""Backstop for a decoder that sleeps. One that computes is ended after 10 s of processor time by the child's
own limit, which a busy machine cannot reach by waiting."""
NATIVE = frozenset(
    {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
    }
)
"""Implicit, Explicit, Deflated and Big Endian: their pixels are a plain buffer."""
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
_BITS_ALLOCATED = frozenset({8, 16, 32})


def stored_values(path: Path, header: Dataset) -> NDArray[Any]:
    """Decode the one frame of an image.

    Returns:
        Stored values of shape (rows, columns), integers, sign-extended, without overlays in unused bits; or
        RGB of shape (rows, columns, 3).

    Raises:
        NotEligibleError: no integer pixels.
        UndecodableError: truncated, damaged, over the limits, or of an unknown transfer syntax.
    """
    _check_description(header)
    syntax = _syntax(header)
    native = not syntax or syntax in NATIVE
    pixels = _native(path, header, syntax) if native else _in_child(path, syntax)
    if pixels.ndim == 2:  # noqa: PLR2004 - rows, columns
        pixels = _used_bits(header, pixels) if native or syntax == RLE else _signed(header, pixels)
    shape = (integer(header, "Rows"), integer(header, "Columns"))
    if pixels.shape[:2] != shape:
        raise UndecodableError("The pixel data holds another number of rows and columns than the header says.")
    if text(header, "PhotometricInterpretation").upper() == "PALETTE COLOR":
        return _palette(header, pixels)
    return pixels


def _syntax(header: Dataset) -> str:
    """Return the transfer syntax; of a bare data set, which names none, what pydicom read it by."""
    syntax = str(header.file_meta.get("TransferSyntaxUID", "") or "")
    big_endian = header.original_encoding[1] is False
    return BIG_ENDIAN if big_endian and not syntax else syntax


def _check_description(header: Dataset) -> None:
    pixels = integer(header, "Rows") * integer(header, "Columns") * integer(header, "SamplesPerPixel", 1)
    if pixels > MAX_PIXELS:
        raise UndecodableError(f"The image claims {pixels} samples; the limit is {MAX_PIXELS}.")
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header or not integer(header, "BitsStored"):
        raise NotEligibleError("The image does not say how many bits its pixels have, or they are no integers.")
    allocated, stored = integer(header, "BitsAllocated"), integer(header, "BitsStored")
    if allocated not in _BITS_ALLOCATED or not 1 < stored <= allocated:
        raise NotEligibleError(f"The image has {stored} of {allocated} bits per pixel, which is not supported.")
    high = integer(header, "HighBit", stored - 1)
    if not 0 <= high < allocated:
        raise NotEligibleError(f"The image has High Bit {high}, which lies outside of {allocated} allocated bits.")
    if integer(header, "SamplesPerPixel", 1) not in {1, 3}:
        raise NotEligibleError("The image has neither one nor three samples per pixel.")


def _native(path: Path, header: Dataset, syntax: str) -> NDArray[Any]:
    dataset = read_part10(path, pixels=True)
    buffer = dataset.get("PixelData")
    if not isinstance(buffer, bytes) or not buffer:
        raise NotEligibleError("The instance has no image pixels.")
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    size = integer(header, "BitsAllocated") // 8
    samples = integer(header, "SamplesPerPixel", 1)
    if samples == 1:
        expected = rows * columns * size
        if len(buffer) < expected:
            raise UndecodableError(f"The pixel data is truncated: {len(buffer)} of {expected} bytes.")
        words = syntax == BIG_ENDIAN and (size > 1 or dataset["PixelData"].VR == "OW")
        return _plain(buffer[: expected + expected % 2], size, swapped=words)[: rows * columns].reshape(rows, columns)
    return _plain_colour(dataset)


def _plain(buffer: bytes, size: int, *, swapped: bool) -> NDArray[Any]:
    if not swapped:
        return np.frombuffer(buffer[: len(buffer) // size * size], dtype=f"<u{size}")
    if size == 1 and len(buffer) % 2 == 0:
        # Big endian OW swaps the bytes of each pair of 8-bit pixels, OB does not (PS3.5 A.3, D.1).
        return np.frombuffer(buffer, dtype=np.uint8).reshape(-1, 2)[:, ::-1].reshape(-1)
    return np.frombuffer(buffer[: len(buffer) // size * size], dtype=f">u{size}").astype(f"<u{size}")


def _plain_colour(dataset: Dataset) -> NDArray[Any]:
    try:
        return np.asarray(dataset.pixel_array)
    except Exception:  # noqa: BLE001 - whatever a decoder raises, the pixels cannot be read
        raise UndecodableError("The pixel data is truncated or damaged.") from None


def _used_bits(header: Dataset, pixels: NDArray[Any]) -> NDArray[Any]:
    """Keep Bits Stored bits below High Bit: overlays may live in the others (PS3.5 8.1.1)."""
    stored = integer(header, "BitsStored")
    high = integer(header, "HighBit", stored - 1)
    unsigned = pixels.view(np.dtype(f"u{pixels.dtype.itemsize}")).astype(np.int64)
    values = (unsigned >> max(0, high + 1 - stored)) & ((1 << stored) - 1)
    if integer(header, "PixelRepresentation") == 1:
        sign = 1 << (stored - 1)
        values = (values ^ sign) - sign
    return values.astype(np.int32) if stored < 32 else values  # noqa: PLR2004


def _signed(header: Dataset, pixels: NDArray[Any]) -> NDArray[Any]:
    """Extend the sign of values that a codec without signs hands back as bits (JPEG-LS, PS3.5 8.2.3)."""
    sign = 1 << (integer(header, "BitsStored") - 1)
    if integer(header, "PixelRepresentation") != 1 or pixels.min() < 0 or not sign <= pixels.max() < 2 * sign:
        return pixels
    return np.asarray((pixels.astype(np.int64) ^ sign) - sign, dtype=np.int32)


def _palette(header: Dataset, pixels: NDArray[Any]) -> NDArray[Any]:
    try:
        coloured = np.asarray(apply_color_lut(pixels.astype(np.uint16), header))
    except Exception:  # noqa: BLE001 - a damaged palette raises many things
        raise UndecodableError("The colour palette of the image is damaged.") from None
    return coloured[..., :3]


_standby: list[subprocess.Popen[bytes]] = []
"""The next decoder. It takes half a second to start, which passes while the present image is analysed; it ends with us,
when its standard input closes."""


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dicom_nodes.objects.decode_child"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _in_child(path: Path, syntax: str) -> NDArray[Any]:
    """Decode in a process of its own, with limits: decoders crash, hang and swell on hostile input."""
    child = _standby.pop() if _standby else _start()
    if child.poll() is not None:
        child = _start()  # somebody ended the one that stood by
    with child:
        try:
            output, _ = child.communicate(os.fsencode(path), timeout=WALL_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise UndecodableError(f"Decoding the pixels took more than {WALL_S:g} s.") from None
    _standby.append(_start())
    name = UID(syntax).name
    if child.returncode == -signal.SIGXCPU:
        raise UndecodableError(f"Decoding the '{name}' pixels takes too much processor time.")
    if child.returncode < 0:
        raise UndecodableError(f"The decoder of '{name}' crashed on the pixel data.")
    head, _, body = output.partition(b"\n")
    try:
        answer = json.loads(head)
        if answer.get("error") == "unsupported":
            raise UndecodableError(
                f"No decoder reads the transfer syntax '{name}': have it sent uncompressed or as JPEG 2000."
            )
        if answer.get("error") == "memory":
            raise UndecodableError(f"Decoding '{name}' pixels needs more memory than allowed.")
        if "error" in answer:
            raise UndecodableError(f"The '{name}' pixel data is truncated or damaged.")
        return np.frombuffer(body, dtype=np.dtype(answer["dtype"])).reshape(answer["shape"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UndecodableError(f"The decoder of '{name}' gave no answer.") from None
