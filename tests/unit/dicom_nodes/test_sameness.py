from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicom_nodes.sameness import Comparison, compare
from tests.network import cr_image


def as_file(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """Write and read again, as an archive does."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    target = BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    target.seek(0)
    return dcmread(target)


def report(**changes: object) -> Dataset:
    dataset = cr_image()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "Müller^Jürgen"
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "Größe"
    dataset.ConceptNameCodeSequence = Sequence([item])
    private = dataset.private_block(0x0099, "PELLUCID", create=True)
    private.add_new(1, "LO", "ours")
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def compared(held: Dataset, syntax: str = ExplicitVRLittleEndian) -> Comparison:
    return compare(as_file(report()), as_file(held, syntax))


def test_what_is_held_as_it_was_sent_is_the_same() -> None:
    found = compared(report())
    assert (found.lie, found.remark) == ("", "")
    assert found.pixels_compared


def test_another_byte_order_of_values_and_unknown_private_elements_do_not_count() -> None:
    held = as_file(report(), ImplicitVRLittleEndian)
    assert held[0x0099, 0x1001].VR == "UN"
    assert compare(as_file(report()), held).lie == ""


def test_lengths_of_groups_and_sequences_padding_and_empty_attributes_do_not_count() -> None:
    held = report(StudyDescription="", DataSetTrailingPadding=bytes(4))
    held["ConceptNameCodeSequence"].is_undefined_length = True
    held.add_new(0x00080000, "UL", 100)
    assert compared(held).lie == ""


def test_text_is_compared_as_it_reads() -> None:
    held = as_file(report())
    held.decode()
    held.SpecificCharacterSet = "ISO_IR 100"
    found = compare(as_file(report()), as_file(held))
    assert (found.lie, found.remark) == ("", "")


@pytest.mark.parametrize(
    ("keyword", "value", "named"),
    [
        ("SeriesDescription", "something else", "SeriesDescription (0008,103E)"),
        ("PixelData", b"\x01" + bytes(511), "PixelData (7FE0,0010)"),
        ("StudyInstanceUID", "1.9", "StudyInstanceUID (0020,000D)"),
        ("Rows", 8, "Rows (0028,0010)"),
    ],
)
def test_what_an_archive_may_not_change_is_named_without_its_value(keyword: str, value: object, named: str) -> None:
    found = compared(report(**{keyword: value}))
    assert found.differing == (named,)
    assert found.lie == f"the peer said success, and holds other content than it was sent: {named}"


def test_a_word_deep_in_a_sequence_and_a_private_element_are_seen() -> None:
    held = report()
    held.ConceptNameCodeSequence[0].CodeMeaning = "Grösse"
    del held[0x0099, 0x1001]
    found = compared(held)
    assert found.differing == ("ConceptNameCodeSequence (0040,A043)", "(0099,1001)")


def test_only_the_first_differences_are_named() -> None:
    held = Dataset()
    held.SOPClassUID, held.SOPInstanceUID = report().SOPClassUID, report().SOPInstanceUID
    found = compared(held)
    assert len(found.differing) > 10
    assert found.lie.endswith(f"and {len(found.differing) - 5} more")
    assert found.lie.count("(") == 5


def test_what_an_archive_reconciles_is_a_remark_without_names() -> None:
    found = compared(report(PatientID="77", PatientName="Maier^Eva", AccessionNumber="A1"))
    assert found.lie == ""
    assert (
        found.remark == "the peer changed AccessionNumber (0008,0050), PatientName (0010,0010), PatientID (0010,0020)"
    )


def test_pixels_in_another_transfer_syntax_are_not_compared_and_the_rest_is() -> None:
    held = as_file(report())
    held.compress(RLELossless, generate_instance_uid=False)
    found = compare(as_file(report()), held)
    assert (found.lie, found.remark) == ("", "held in another transfer syntax: pixels were not compared")
    held.SeriesDescription = "something else"
    assert compare(as_file(report()), held).differing == ("SeriesDescription (0008,103E)",)
