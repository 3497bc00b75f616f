"""Copies what a source says of body part, side and orientation, where the picture lies as the source lies."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from dicom_nodes.objects.attributes import items, text, texts

_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
_ORIENTATION = re.compile(r"[RLAPHF]{1,3}|[A-Z]{1,16}")
"""Of a human or an animal (PS3.3 C.7.6.1.1.1)."""
_UNPAIRED = frozenset(
    [
        "ABDOMEN",
        "ABDOMENPELVIS",
        "AORTA",
        "BLADDER",
        "BRAIN",
        "CHEST",
        "CHESTABDOMEN",
        "CHESTABDPELVIS",
        "COCCYX",
        "COLON",
        "CSPINE",
        "CTSPINE",
        "DUODENUM",
        "ESOPHAGUS",
        "FACE",
        "GALLBLADDER",
        "HEAD",
        "HEADNECK",
        "HEART",
        "JAW",
        "LIVER",
        "LSPINE",
        "LSSPINE",
        "MAXILLA",
        "MEDIASTINUM",
        "NECK",
        "NECKCHEST",
        "NOSE",
        "PANCREAS",
        "PELVIS",
        "PHARYNX",
        "PROSTATE",
        "RECTUM",
        "SKULL",
        "SPINE",
        "SPLEEN",
        "SSPINE",
        "STERNUM",
        "STOMACH",
        "THYROID",
        "TLSPINE",
        "TONGUE",
        "TRACHEA",
        "TSPINE",
        "UTERUS",
        "WHOLEBODY",
    ]
)
"""Body parts of PS3.16 annex L that have no side."""


def add_anatomy(source: Dataset, dataset: Dataset) -> None:
    """Both panels lie as the source lies, so its orientation and side hold for the picture."""
    orientation = texts(source, "PatientOrientation")
    sound = len(orientation) == 2 and all(map(_ORIENTATION.fullmatch, orientation))  # noqa: PLR2004 - row and column
    dataset.PatientOrientation = list(orientation) if sound else None
    side = text(source, "ImageLaterality").upper()
    if side in {"L", "R", "U", "B"}:  # PS3.3 C.8.11.1.1.3
        dataset.ImageLaterality = side
    add_body_part(source, dataset)
    for item in items(source, "AnatomicRegionSequence")[:1]:
        if text(item, "CodeValue") and text(item, "CodingSchemeDesignator") and text(item, "CodeMeaning"):
            dataset.AnatomicRegionSequence = [_plain_code(item)]


def add_body_part(source: Dataset, dataset: Dataset, *, side: bool = True) -> None:
    """Write Body Part Examined and, with `side`, Laterality of the General Series module (PS3.3 C.7.3.1)."""
    value = text(source, "BodyPartExamined").upper()
    if _CODE_STRING.fullmatch(value):
        dataset.BodyPartExamined = value
    if side:
        _add_laterality(source, dataset)


def _add_laterality(source: Dataset, dataset: Dataset) -> None:
    """Laterality is type 2C (PS3.3 C.7.3.1): forbidden on unpaired parts, else present, if need be empty."""
    if text(source, "BodyPartExamined").upper() in _UNPAIRED or "ImageLaterality" in dataset:
        return
    side = (text(source, "Laterality") or text(source, "ImageLaterality")).upper()
    dataset.Laterality = side if side in {"L", "R"} else None


def _plain_code(item: Dataset) -> Dataset:
    copy = Dataset()
    for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"):
        setattr(copy, keyword, text(item, keyword))
    return copy
