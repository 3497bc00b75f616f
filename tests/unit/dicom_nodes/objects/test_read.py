from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicom_nodes.objects.read import read_header, read_image
from service.errors import InvalidInstanceError, NotEligibleError, UndecodableError

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


def test_several_frames_are_not_eligible(source: Make, saved: Save) -> None:
    with pytest.raises(NotEligibleError, match="3 frames"):
        read_image(saved(source(RAMP, NumberOfFrames=3)))


def test_one_frame_of_a_multi_frame_class_is_read(source: Make, saved: Save) -> None:
    assert read_image(saved(source(RAMP, NumberOfFrames=1))).image.values.tolist() == RAMP.tolist()


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


def test_the_header_says_what_eligibility_asks(source: Make, saved: Save) -> None:
    dataset = source(
        RAMP, ViewPosition="PA", ImageLaterality="U", PatientAge="018M", PatientSpeciesDescription="Canine"
    )
    dataset.SeriesDescription, dataset.ConversionType = "Thorax", "WSD"
    _, header = read_header(saved(dataset))
    assert (header.modality, header.body_part, header.view_position) == ("CR", "CHEST", "PA")
    assert (header.rows, header.columns, header.frames, header.laterality) == (2, 4, 1, "U")
    assert (header.age_years, header.species) == (1.5, "Canine")
    assert header.patient_orientation == ("L", "F")
    assert (header.descriptions, header.conversion_type) == (("Thorax",), "WSD")


def test_a_human_has_no_species_and_an_age_from_the_dates(source: Make, saved: Save) -> None:
    _, header = read_header(saved(source(RAMP, PatientSpeciesDescription="Homo sapiens")))
    assert header.species == ""
    assert header.age_years == pytest.approx(56.9, abs=0.1)


def test_a_picture_with_words_burned_in_or_derived_from_images_says_so(source: Make, saved: Save) -> None:
    _, plain = read_header(saved(source(RAMP, BurnedInAnnotation="NO")))
    _, annotated = read_header(saved(source(RAMP, BurnedInAnnotation="YES")))
    _, made = read_header(saved(source(RAMP, SourceImageSequence=[Dataset()])))
    _, derived = read_header(saved(source(RAMP, ImageType=["DERIVED", "SECONDARY", "AI"])))
    _, processed = read_header(saved(source(RAMP, ImageType=["DERIVED", "PRIMARY"])))
    assert [header.marked_up for header in (plain, annotated, made, derived, processed)] == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": ["0.2", "0.1"], "ImagerPixelSpacing": ["0.3", "0.3"]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": ["0.3", "0.3"]}, (0.3, 0.3)),
        ({"PixelSpacing": ["0.000", "0.000"]}, None),
        ({}, None),
    ],
)
def test_spacing_is_what_the_source_says(
    source: Make, saved: Save, attributes: dict[str, list[str]], expected: tuple[float, float] | None
) -> None:
    assert read_image(saved(source(RAMP, **attributes))).image.pixel_spacing_mm == expected


def test_real_radiographs_have_bright_mediastina(shared_dicom: Path) -> None:
    for name in ("nih-dx-sc-sopclass.dcm", "philips-mono1-15bit-j2k.dcm"):
        grey = read_image(shared_dicom / "chest" / name).image.grey
        rows, columns = grey.shape
        spine = grey[rows // 2 : rows * 3 // 4, columns * 45 // 100 : columns * 55 // 100].mean()
        lungs = grey[rows // 4 : rows // 2, columns // 5 : columns * 2 // 5].mean()
        assert spine > lungs + 0.2


def test_malformed_real_files_are_answered_by_their_fault(shared_dicom: Path) -> None:
    with pytest.raises(UndecodableError, match="truncated"):
        read_image(shared_dicom / "malformed" / "MR_truncated.dcm")
    with pytest.raises(InvalidInstanceError):
        read_image(shared_dicom / "malformed" / "meta_missing_tsyntax.dcm")


def test_true_colour_of_12_bits_is_as_bright_as_of_8(source: Make, saved: Save) -> None:
    deep = np.repeat(np.array([[0, 2048, 4095]], dtype=np.uint16)[..., None], 3, axis=2)
    image = read_image(saved(source(deep, BitsStored=12, HighBit=11))).image
    assert np.allclose(image.grey, [[0, 0.5, 1.0]], atol=1e-3)


def test_values_of_a_minute_slope_keep_their_contrast(source: Make, saved: Save) -> None:
    grey = read_image(saved(source(RAMP, RescaleSlope="1e-12"))).image.grey
    assert (grey.min(), grey.max()) == (0.0, 1.0)


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


def test_code_strings_cannot_fill_or_forge_a_log(source: Make, saved: Save) -> None:
    dataset = source(RAMP)
    dataset.add_new("BodyPartExamined", "UT", "knee\nadmitted: " + "x" * 30000)
    dataset.add_new("ViewPosition", "LO", "pa")
    _, header = read_header(saved(dataset))
    assert header.body_part == "KNEE?ADMITTED? X"
    assert header.view_position == "PA"


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


@pytest.mark.parametrize("values", [["1e-9", "1"], ["1e-30", "1e-30"], ["1e30", "1e30"], ["50", "1"], ["0", "1"]])
def test_a_spacing_that_no_detector_has_reads_as_absent(source: Make, saved: Save, values: list[str]) -> None:
    assert read_image(saved(source(RAMP, PixelSpacing=values))).image.pixel_spacing_mm is None


@pytest.mark.parametrize(("slope", "intercept"), [("1e39", "0"), ("1", "1e39"), ("1e308", "-1e308")])
def test_a_rescale_beyond_all_numbers_is_refused(source: Make, saved: Save, slope: str, intercept: str) -> None:
    with pytest.raises(NotEligibleError, match="not finite"):
        read_image(saved(source(RAMP, RescaleSlope=slope, RescaleIntercept=intercept)))
