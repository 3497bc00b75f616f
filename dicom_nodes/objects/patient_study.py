"""Copies the Patient and Study modules of the source exactly, as UTF-8 (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.valuerep import PersonName

from dicom_nodes.objects.part10 import MAX_DEPTH, MAX_ITEMS

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Type 1 and 2: present in every object, empty where the source is silent."""
OPTIONAL = (
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "PatientBirthTime",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    "PhysiciansOfRecord",
    "ConsultingPhysicianName",
    "ReferencedStudySequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientState",
    "AdditionalPatientHistory",
    "AdmissionID",
    "Occupation",
    "PregnancyStatus",
    "SmokingStatus",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "TimezoneOffsetFromUTC",
)
"""Type 3: copied when present, filled and well formed."""
_TEXTUAL = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_BINARY = frozenset({"UN", "OB", "OW", "OD", "OF", "OL", "OV"})
_GB_2312 = re.compile(r"\x1b\$\)A")
"""The escape sequence of ISO 2022 IR 58, which pydicom leaves in the text that it decodes."""


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


_WELL_FORMED: dict[str, Callable[[str], bool]] = {
    "AS": _matches(r"\d{3}[DWMY]"),
    "DA": _matches(r"\d{8}"),
    "TM": _matches(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "DS": _matches(r"(?=.{0,16}$)\s*[+-]?\d*\.?\d+([eE][+-]?\d+)?\s*"),
    "IS": _matches(r"\s*[+-]?\d{1,11}\s*"),
    "CS": _matches(r"[A-Z0-9_ ]{0,16}"),
    "UI": _matches(r"[0-9.]{1,64}"),
    # Characters, as PS3.5 table 6.2-1 counts: dciodvfy counts bytes, of which a Cyrillic letter has two in UTF-8.
    "SH": lambda value: len(value) <= 16,  # noqa: PLR2004
    "LO": lambda value: len(value) <= 64,  # noqa: PLR2004
    "ST": lambda value: len(value) <= 1024,  # noqa: PLR2004
    "LT": lambda value: len(value) <= 10240,  # noqa: PLR2004
}


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Write the modules into `target`, whose Specific Character Set must be ISO_IR 192.

    What identifies the patient and the study is copied even where it breaks its VR, because a PACS files by
    equality; optional attributes that break theirs are left out.
    """
    for keyword in REQUIRED:
        copied = _copy(source[keyword], depth=0) if keyword in source else None
        target[keyword] = copied or _element(tag_for_keyword(keyword), dictionary_VR(keyword), "")
    for keyword in OPTIONAL:
        if keyword in source and _is_sound(source[keyword]):
            copied = _copy(source[keyword], depth=0)
            if copied is not None and not copied.is_empty:
                target[keyword] = copied
    if target.get("PatientIdentityRemoved") == "YES" and not (
        target.get("DeidentificationMethod") or target.get("DeidentificationMethodCodeSequence")
    ):
        # Type 1C (PS3.3 C.7.1.1): one of the two must stand beside YES.
        target.DeidentificationMethod = "Not stated by the source"


def _element(tag: Any, vr: str, value: Any) -> DataElement:
    return DataElement(tag, vr, value, validation_mode=config.IGNORE)


def _vr(element: DataElement) -> str:
    """Return the VR that the standard gives it: what the file says may be anything."""
    return dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else str(element.VR)


def _is_sound(element: DataElement) -> bool:
    check = _WELL_FORMED.get(_vr(element))
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    return check is None or all(check(_text(value)) for value in values if value is not None)


def _text(value: Any) -> str:
    """Return a number or a date as it was written."""
    return str(getattr(value, "original_string", None) or value)


def _copy(element: DataElement, *, depth: int) -> DataElement | None:
    vr = _vr(element)
    if isinstance(element.value, bytes):
        return None
    if element.VR == "SQ":
        return _copy_sequence(element, depth=depth) if vr == "SQ" else None
    if vr not in _TEXTUAL and (vr != element.VR or vr in _BINARY):
        return None
    try:
        return _element(element.tag, vr, _value(element, vr))
    except (TypeError, ValueError, OverflowError):
        return None


def _value(element: DataElement, vr: str) -> Any:
    if element.is_empty:
        return element.value if element.value is not None else ""
    values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
    if vr not in _TEXTUAL:
        return element.value
    texts = [_GB_2312.sub("", str(value) if vr == "PN" else _text(value)) for value in values if value is not None]
    copies = [PersonName(each, encodings=["utf-8"]) for each in texts] if vr == "PN" else texts
    return copies[0] if len(copies) == 1 else copies


def _copy_sequence(element: DataElement, *, depth: int) -> DataElement | None:
    """Copy items; nesting deeper than any of these modules has is cut off, for it is made to exhaust us."""
    if depth >= MAX_DEPTH or not isinstance(element.value, DicomSequence):
        return None
    found = [item for item in list(element.value)[:MAX_ITEMS] if _says_something(element.keyword, item)]
    copies = [_copy_item(item, depth=depth) for item in found]
    return DataElement(element.tag, "SQ", DicomSequence(copies)) if copies else None


def _says_something(keyword: str, item: Dataset) -> bool:
    """Leave out an item that no reader could use, and codes without value, scheme or meaning (PS3.3 table 8.8-1)."""
    if not keyword.endswith("CodeSequence"):
        return bool(len(item))
    value = next((name for name in ("CodeValue", "LongCodeValue", "URNCodeValue") if item.get(name)), "")
    scheme = value == "URNCodeValue" or item.get("CodingSchemeDesignator")
    return bool(value and scheme and item.get("CodeMeaning")) and all(
        _is_sound(item[name]) for name in (value, "CodingSchemeDesignator", "CodeMeaning") if name in item
    )


def _copy_item(item: Dataset, *, depth: int) -> Dataset:
    target = Dataset()
    for child in item:
        if child.tag.is_private or child.keyword in {"", "SpecificCharacterSet"}:
            continue
        copied = _copy(child, depth=depth + 1) if _is_sound(child) else None
        if copied is not None:
            target[child.tag] = copied
    return target
