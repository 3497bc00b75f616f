from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicom_nodes.objects.read import read_header, read_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import FileDataset

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]

RAMP = np.array([[0, 100, 200, 300], [400, 500, 600, 700]], dtype=np.uint16)


def test_a_plain_image_keeps_its_grid_and_its_values(source: Make, saved: Save) -> None:
    image = read_image(saved(source(RAMP))).image
    assert image.values.tolist() == RAMP.tolist()
    assert image.grey.shape == (2, 4)
    assert image.grey.dtype == np.float32
    assert image.grey[0, 0] < image.grey[0, 3] < image.grey[1, 3]


def test_a_negative_slope_turns_the_order_of_values(source: Make, saved: Save) -> None:
    image = read_image(saved(source(RAMP, RescaleSlope="-1", RescaleIntercept="700"))).image
    assert image.values.tolist() == (700 - RAMP.astype(int)).tolist()
    assert image.grey[0, 0] > image.grey[1, 3]


def test_the_linear_window_is_the_standards_formula(source: Make, saved: Save) -> None:
    image = read_image(saved(source(RAMP, WindowCenter="300", WindowWidth="401"))).image
    expected = np.clip((RAMP - 299.5) / 400 + 0.5, 0, 1)
    assert np.allclose(image.grey, expected, atol=1e-6)


def test_the_exact_window_is_the_standards_formula(source: Make, saved: Save) -> None:
    dataset = source(RAMP, WindowCenter="300", WindowWidth="400", VOILUTFunction="LINEAR_EXACT")
    assert np.allclose(read_image(saved(dataset)).image.grey, np.clip((RAMP - 300.0) / 400 + 0.5, 0, 1))


def test_the_sigmoid_window_is_the_standards_formula(source: Make, saved: Save) -> None:
    dataset = source(RAMP, WindowCenter="300", WindowWidth="400", VOILUTFunction="SIGMOID")
    expected = 1 / (1 + np.exp(-4 * (RAMP - 300.0) / 400))
    assert np.allclose(read_image(saved(dataset)).image.grey, expected, atol=1e-6)


def test_the_first_of_several_windows_counts(source: Make, saved: Save) -> None:
    image = read_image(saved(source(RAMP, WindowCenter=["100", "600"], WindowWidth=["50", "50"]))).image
    assert image.grey[0].tolist() == [0.0, pytest.approx(0.51, abs=0.01), 1.0, 1.0]


def test_the_window_works_on_rescaled_values(source: Make, saved: Save) -> None:
    dataset = source(RAMP, RescaleSlope="2", RescaleIntercept="-1000", WindowCenter="-300", WindowWidth="2")
    assert read_image(saved(dataset)).image.grey[0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert read_image(saved(dataset)).image.grey[1].tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("center", "width"), [("0", "0"), ("0", "-5"), ("NaN", "10"), ("99999", "10")])
def test_a_window_that_shows_nothing_is_not_used(source: Make, saved: Save, center: str, width: str) -> None:
    dataset = source(RAMP)
    dataset.add_new("WindowCenter", "LO", center)
    dataset.add_new("WindowWidth", "LO", width)
    grey = read_image(saved(dataset)).image.grey
    assert grey.min() == 0.0
    assert grey.max() == 1.0


def test_a_modality_table_replaces_the_rescale(source: Make, saved: Save) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [3, 100, 16])
    table.add_new("LUTData", "US", [7, 5000, 30000])
    table.ModalityLUTType = "US"
    dataset = source(np.array([[0, 100, 101, 102, 900]], dtype=np.uint16), ModalityLUTSequence=[table])
    assert read_image(saved(dataset)).image.values.tolist() == [[7, 7, 5000, 30000, 30000]]


def test_a_voi_table_with_signed_input_is_followed(source: Make, saved: Save) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "SS", [4, -1, 8])
    table.add_new("LUTData", "OW", np.array([0, 51, 102, 255], dtype="<u2").tobytes())
    dataset = source(np.array([[-5, -1, 0, 1, 2, 9]], dtype=np.int16), VOILUTSequence=[table])
    grey = read_image(saved(dataset)).image.grey
    assert np.allclose(grey * 255, [[0, 0, 51, 102, 255, 255]], atol=1e-3)


def test_monochrome1_is_turned_to_bright_bone(source: Make, saved: Save) -> None:
    plain = read_image(saved(source(RAMP))).image.grey
    turned = read_image(saved(source(RAMP, PhotometricInterpretation="MONOCHROME1"))).image
    assert np.allclose(turned.grey, 1 - plain)
    assert turned.values.tolist() == RAMP.tolist()


def test_monochrome1_with_an_inverse_presentation_is_turned_once(source: Make, saved: Save) -> None:
    dataset = source(RAMP, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert read_image(saved(dataset)).image.grey[0, 0] == 1.0


def test_an_inverse_presentation_of_monochrome2_is_turned(source: Make, saved: Save) -> None:
    assert read_image(saved(source(RAMP, PresentationLUTShape="INVERSE"))).image.grey[0, 0] == 1.0


def test_signed_12_bit_values_are_sign_extended(source: Make, saved: Save) -> None:
    stored = np.array([[0xFFF, 0x800, 0x7FF, 0x001]], dtype=np.uint16)
    dataset = source(stored, BitsStored=12, HighBit=11, PixelRepresentation=1)
    assert read_image(saved(dataset)).image.values.tolist() == [[-1, -2048, 2047, 1]]


def test_overlay_bits_above_the_pixel_are_masked(source: Make, saved: Save) -> None:
    stored = np.array([[0x1005, 0x8007]], dtype=np.uint16)
    assert read_image(saved(source(stored, BitsStored=12, HighBit=11))).image.values.tolist() == [[5, 7]]


def test_a_high_bit_that_is_not_the_lowest_possible_shifts(source: Make, saved: Save) -> None:
    stored = np.array([[0x1230, 0xFFF7]], dtype=np.uint16)
    dataset = source(stored, BitsStored=12, HighBit=15)
    assert read_image(saved(dataset)).image.values.tolist() == [[0x123, 0xFFF]]


def test_fifteen_bits_use_their_whole_range(source: Make, saved: Save) -> None:
    stored = np.array([[0, 0x7FFF, 0x4000]], dtype=np.uint16)
    dataset = source(stored, BitsStored=15, HighBit=14)
    assert read_image(saved(dataset)).image.values.tolist() == [[0, 0x7FFF, 0x4000]]


def test_padding_is_black_and_no_extreme(source: Make, saved: Save) -> None:
    stored = np.array([[-2000, -2000, 0, 50, 100]] * 50, dtype=np.int16)
    dataset = source(stored, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    image = read_image(saved(dataset)).image
    assert image.grey[0, 0] == 0.0
    assert image.values.min() == 0
    assert image.grey[0].tolist()[2:] == [1.0, 0.5, 0.0]


def test_a_padding_range_is_excluded(source: Make, saved: Save) -> None:
    stored = np.array([[0, 10, 20, 1000, 2000]], dtype=np.uint16)
    image = read_image(saved(source(stored, PixelPaddingValue=0, PixelPaddingRangeLimit=20))).image
    assert image.grey[0, :3].tolist() == [0, 0, 0]
    assert image.values.min() == 1000


def test_eight_bits_without_a_window_use_the_stored_range(source: Make, saved: Save) -> None:
    stored = np.array([[50, 100, 150, 200]], dtype=np.uint8)
    assert np.allclose(read_image(saved(source(stored))).image.grey * 255, stored, atol=1e-4)


def test_an_outlier_does_not_darken_sixteen_bits_without_a_window(source: Make, saved: Save) -> None:
    stored = np.tile(np.arange(1000, 2000, dtype=np.uint16), (10, 1))
    stored[0, 0] = 65535
    assert read_image(saved(source(stored))).image.grey.mean() == pytest.approx(0.5, abs=0.02)


def test_colour_becomes_luminance(source: Make, saved: Save) -> None:
    stored = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    grey = read_image(saved(source(stored))).image.grey
    assert np.allclose(grey, [[0.299, 0.587, 0.114, 1.0]], atol=1e-3)


def test_a_palette_is_looked_up(source: Make, saved: Save) -> None:
    dataset = source(np.array([[0, 1, 1, 0]], dtype=np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [2, 0, 8])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", b"\x00\xff")
    assert np.allclose(read_image(saved(dataset)).image.grey, [[0, 1, 1, 0]], atol=0.01)


def test_big_endian_pixels_are_read(source: Make, tmp_path: Path) -> None:
    dataset = source(RAMP)
    dataset.PixelData = RAMP.byteswap().tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big.dcm"
    dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    assert read_image(path).image.values.tolist() == RAMP.tolist()


@pytest.mark.parametrize(("vr", "content"), [("OW", b"\2\1\4\3"), ("OB", b"\1\2\3\4")])
def test_big_endian_words_of_eight_bits_are_swapped_and_bytes_are_not(
    vr: str, content: bytes, source: Make, tmp_path: Path
) -> None:
    dataset = source(np.array([[1, 2], [3, 4]], dtype=np.uint8))
    dataset.add_new("PixelData", vr, content)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big.dcm"
    dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    assert read_image(path).image.values.tolist() == [[1, 2], [3, 4]]


def test_a_bare_big_endian_data_set_is_read(source: Make, tmp_path: Path) -> None:
    dataset = source(RAMP)
    dataset.PixelData = RAMP.byteswap().tobytes()
    del dataset.file_meta
    path = tmp_path / "bare.dcm"
    dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    assert read_image(path).image.values.tolist() == RAMP.tolist()


def test_a_deflated_image_is_read(source: Make, saved: Save) -> None:
    dataset = source(RAMP)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = saved(dataset)
    assert read_image(path).image.values.tolist() == RAMP.tolist()
    assert "PixelData" not in read_header(path)[0]


def test_one_frame_of_a_multi_frame_class_is_read(source: Make, saved: Save) -> None:
    assert read_image(saved(source(RAMP, NumberOfFrames=1))).image.values.tolist() == RAMP.tolist()


def test_real_radiographs_have_bright_mediastina(shared_dicom: Path) -> None:
    for name in ("nih-dx-sc-sopclass.dcm", "philips-mono1-15bit-j2k.dcm"):
        grey = read_image(shared_dicom / "chest" / name).image.grey
        rows, columns = grey.shape
        spine = grey[rows // 2 : rows * 3 // 4, columns * 45 // 100 : columns * 55 // 100].mean()
        lungs = grey[rows // 4 : rows // 2, columns // 5 : columns * 2 // 5].mean()
        assert spine > lungs + 0.2


def test_true_colour_of_12_bits_is_as_bright_as_of_8(source: Make, saved: Save) -> None:
    deep = np.repeat(np.array([[0, 2048, 4095]], dtype=np.uint16)[..., None], 3, axis=2)
    image = read_image(saved(source(deep, BitsStored=12, HighBit=11))).image
    assert np.allclose(image.grey, [[0, 0.5, 1.0]], atol=1e-3)


def test_values_of_a_minute_slope_keep_their_contrast(source: Make, saved: Save) -> None:
    grey = read_image(saved(source(RAMP, RescaleSlope="1e-12"))).image.grey
    assert (grey.min(), grey.max()) == (0.0, 1.0)
