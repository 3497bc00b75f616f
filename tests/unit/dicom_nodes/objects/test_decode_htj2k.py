"""High-Throughput JPEG 2000, encoded by OpenJPH: read to the last bit, and refused where it is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL

from dicom_nodes.objects.decode import stored_values
from dicom_nodes.objects.part10 import read_part10
from dicom_nodes.objects.read import read_image
from service.errors import UndecodableError
from tests.htj2k import compress, expanded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]

ROWS, COLUMNS = np.mgrid[:151, :133]
WAVE = 0.5 + 0.45 * np.sin(ROWS / 23 + COLUMNS / 41)
LAYOUTS = {
    HTJ2KLossless: ("-prog_order", "LRCP"),
    HTJ2KLosslessRPCL: ("-prog_order", "RPCL", "-tile_size", "{100,90}"),
    HTJ2K: ("-prog_order", "RPCL", "-block_size", "{32,32}", "-num_decomps", "0"),
}


def values(bits: int, *, signed: bool) -> NDArray[np.int64]:
    """A smooth image with the noise of film in it, whose extremes are those of its bits."""
    made = (WAVE * ((1 << bits) - 1) + np.random.default_rng(bits).normal(0, 2, WAVE.shape)).astype(np.int64)
    made[0, :2] = 0, (1 << bits) - 1
    return made - ((1 << bits - 1) if signed else 0)


def film(source: Make, bits: int, *, signed: bool = False) -> FileDataset:
    """Make an image of these values."""
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    claim = {"BitsStored": bits, "HighBit": bits - 1, "BitsAllocated": 8 * kind.itemsize}
    return source(values(bits, signed=signed).astype(kind), **claim, PixelRepresentation=int(signed))


def damaged(dataset: FileDataset, change: Callable[[bytes], bytes]) -> FileDataset:
    """Replace the codestream."""
    dataset.PixelData = encapsulate([change(codestream(dataset))])
    dataset["PixelData"].VR = "OB"
    return dataset


def codestream(dataset: Dataset) -> bytes:
    """The codestream without the byte that may fill its fragment."""
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    return bytes(frame).rstrip(b"\0")


@pytest.mark.parametrize("syntax", LAYOUTS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_stored_value_is_read_as_it_was(source: Make, saved: Save, bits: int, signed: bool, syntax: str) -> None:
    dataset = film(source, bits, signed=signed)
    compress(dataset, syntax, "-reversible", "true", *LAYOUTS[syntax])
    path = saved(dataset)
    assert stored_values(path, read_part10(path, pixels=False)).tolist() == values(bits, signed=signed).tolist()


@pytest.mark.parametrize("depth", [12, 16])
def test_twelve_bits_are_read_from_codestreams_of_twelve_and_of_sixteen(source: Make, saved: Save, depth: int) -> None:
    dataset = film(source, 12)
    compress(dataset, HTJ2KLossless, bits=depth)
    assert read_image(saved(dataset)).image.values.tolist() == values(12, signed=False).tolist()


def test_lossy_pixels_are_what_another_decoder_makes_of_them(source: Make, saved: Save) -> None:
    dataset = film(source, 12)
    compress(dataset, HTJ2K, "-reversible", "false", "-qstep", "0.002")
    theirs = expanded(codestream(dataset), shape=WAVE.shape).astype(int)
    ours = read_image(saved(dataset)).image.values.astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert 0 < np.abs(ours - values(12, signed=False)).max() < 40


@pytest.mark.parametrize("photometric", ["RGB", "YBR_RCT"])
def test_colours_are_read_with_and_without_their_transformation(source: Make, saved: Save, photometric: str) -> None:
    plain = (WAVE[..., None] * [120, 200, 40] + [10, 30, 200]).astype(np.uint8)
    claim = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    dataset = source(plain, **claim, PhotometricInterpretation="RGB")
    compress(dataset, HTJ2KLossless, "-reversible", "true", "-colour_trans", str(photometric != "RGB").lower())
    dataset.PhotometricInterpretation = photometric
    path = saved(dataset)
    assert stored_values(path, read_part10(path, pixels=False)).tolist() == plain.tolist()


@pytest.mark.parametrize("part", [2, 10])
def test_a_part_of_a_codestream_is_undecodable(source: Make, saved: Save, part: int) -> None:
    dataset = film(source, 12)
    compress(dataset, HTJ2KLossless)
    with pytest.raises(UndecodableError, match="High-Throughput JPEG 2000"):
        read_image(saved(damaged(dataset, lambda code: code[: len(code) // part])))


def test_a_codestream_that_claims_gigapixels_is_undecodable(source: Make, saved: Save) -> None:
    dataset = film(source, 12)
    compress(dataset, HTJ2KLossless)

    def swollen(code: bytes) -> bytes:
        size = code.index(b"\xff\x51") + 6
        claimed = bytearray(code)
        for offset in (0, 4, 16, 20):
            claimed[size + offset : size + offset + 4] = (40_000).to_bytes(4, "big")
        return bytes(claimed)

    with pytest.raises(UndecodableError):
        read_image(saved(damaged(dataset, swollen)))
