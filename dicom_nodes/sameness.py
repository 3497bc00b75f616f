"""Whether a data set that an archive holds is the one that it was sent, apart from what an archive may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import Tag

from dicom_nodes.contexts import UNCOMPRESSED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import DataElement, Dataset
    from pydicom.tag import BaseTag

RECONCILED = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyID",
    "StudyDescription",
    "ReferringPhysicianName",
    "InstanceCoercionDateTime",
    "OriginalAttributesSequence",
)
"""An archive may make these fit its own records of patients and orders, and say so (PS3.4 section B.4.1.3).

The UIDs of study and series may be changed there too; but then a result lies where nobody looks for it, so here they
may not.
"""
ABOUT_STORING = (
    "SpecificCharacterSet",
    "RetrieveAETitle",
    "RetrieveURL",
    "InstanceAvailability",
    "DataSetTrailingPadding",
)
"""Text is compared as it reads, so the way it is encoded does not count; the others are about the archive itself."""
_OF_ENCODING = ("PixelData", "PhotometricInterpretation", "PlanarConfiguration")
"""Follow from the transfer syntax: they say nothing when it is another one."""
_PIXEL_DATA = Tag(0x7FE0, 0x0010)
_NAMED_AT_MOST = 5
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"})


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs, by names of attributes; values are nobody's business."""

    differing: tuple[str, ...]
    """What an archive may not change."""
    reconciled: tuple[str, ...]
    """What it may, and did."""
    pixels_compared: bool
    """False when the transfer syntax is another one."""

    @property
    def lie(self) -> str:
        """What is wrong, in words; empty when nothing is."""
        if not self.differing:
            return ""
        more = len(self.differing) - _NAMED_AT_MOST
        names = ", ".join(self.differing[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
        return f"the peer said success, and holds other content than it was sent: {names}"

    @property
    def remark(self) -> str:
        """What an administrator may want to know although all is well."""
        remarks = [f"the peer changed {', '.join(self.reconciled)}"] if self.reconciled else []
        remarks += [] if self.pixels_compared else ["held in another transfer syntax: pixels were not compared"]
        return "; ".join(remarks)


def compare(sent: Dataset, held: Dataset) -> Comparison:
    """Compare two data sets, each read with its file meta information.

    Lengths of groups and sequences, padding, byte order and the encoding of text do not count, and an empty attribute
    is as good as none. Both data sets are decoded in place.

    Raises:
        Exception: `held` cannot be decoded; of which type depends on what is wrong with it.
    """
    syntaxes = {str(entry.file_meta.TransferSyntaxUID) for entry in (sent, held)}
    same_encoding = len(syntaxes) == 1 or syntaxes <= set(UNCOMPRESSED)
    passed_over = _tags(ABOUT_STORING) | (set() if same_encoding else _tags(_OF_ENCODING))
    ours, theirs = _encoded(sent), _encoded(held)
    changed = sorted(
        tag for tag in (ours.keys() | theirs.keys()) - passed_over if ours.get(tag, b"") != theirs.get(tag, b"")
    )
    may_change = _tags(RECONCILED)
    return Comparison(
        differing=tuple(_name(tag) for tag in changed if tag not in may_change),
        reconciled=tuple(_name(tag) for tag in changed if tag in may_change),
        pixels_compared=same_encoding or "PixelData" not in sent,
    )


def _encoded(dataset: Dataset) -> dict[BaseTag, bytes]:
    """Encode each attribute anew, in one way."""
    dataset.decode()
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = False
            for item in element.value:
                item.is_undefined_length_sequence_item = False
    return {element.tag: _value(element) for element in dataset if element.tag.element}


def _value(element: DataElement) -> bytes:
    if element.tag == _PIXEL_DATA:
        return bytes(element.value)
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, True
    write_data_element(target, element, ["utf8"])
    value = target.getvalue()[8:]
    return value if element.VR in _BINARY else value.rstrip(b" \0")


def _tags(keywords: Iterable[str]) -> set[BaseTag]:
    return {Tag(found) for keyword in keywords if (found := tag_for_keyword(keyword)) is not None}


def _name(tag: BaseTag) -> str:
    keyword = keyword_for_tag(tag)
    number = f"({tag.group:04X},{tag.element:04X})"
    return f"{keyword} {number}" if keyword else number
