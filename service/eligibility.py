"""Does a model read this image? Decided by what the image says of itself; a refusal is a result, not an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.images import ImageHeader
    from service.model_card import Eligibility

_WORD = re.compile(r"[A-Z]+")
_LATERAL_WORDS = frozenset({"LAT", "LATERAL", "LL", "RL", "SEITLICH", "PROFIL", "PROFILE"})
_FRONTAL_WORDS = frozenset({"PA", "AP", "FRONTAL"})
_ANIMAL_WORDS = frozenset({"CANINE", "FELINE", "EQUINE", "BOVINE", "VET", "VETERINARY", "CANIS", "FELIS"})
"""No dog and no cat: people are bitten by the one, and scanned in the other's name."""
_CODE = re.compile(r"[A-Z0-9 _./+-]{1,32}")
"""More than a code string may hold (PS3.5 section 6.2), since devices write more; no controls, and no name's carets."""
_HUMAN = frozenset({"", "HOMO SAPIENS", "HUMAN"})
_MADE_BY = {
    "WSD": "on a workstation",
    "SYN": "by a program",
    "DRW": "by drawing",
    "SD": "by scanning a document",
}
"""Conversion types (PS3.3 section C.8.6.1) of what is no film: another program's results come so, in its study. But
films that were converted from other formats say WSD too, so that alone is no reason."""
_RESULTS = frozenset({"SEG", "RWV", "RTDOSE"})
"""Modalities of what has pixels, and is computed."""
_SIDES = frozenset("AP")
_FRONTAL = frozenset({"PA", "AP"})
_DIRECTION = re.compile(r"[RLAPHF]{1,3}")
_UPRIGHT = ["L", "F"]
"""Towards the patient's left along a row, towards the feet along a column (PS3.3 section C.7.6.1.1.1)."""


def reason_not_to_read(header: ImageHeader, rules: Eligibility, modalities: Sequence[str]) -> str | None:
    """Return why a pipeline does not read an image, in words for an administrator; None when it does.

    Args:
        header: what the image says of itself.
        rules: what the model was made for, from its card.
        modalities: what the pipeline reads.
    """
    checks = (
        _modality(header, modalities),
        _modality(header, rules.modalities),
        _pixels(header),
        _conversion(header),
        _raw(header),
        _species(header),
        _body_part(header, rules.body_parts),
        _view(header, rules.views),
        _size(header, rules),
        _age(header, rules),
    )
    return next((reason for reason in checks if reason), None)


def is_result(header: ImageHeader) -> bool:
    """Tell whether an instance is no image that somebody looks at.

    That is a report, marks, what a program or workstation made, or what a detector gave for processing.
    """
    if header.rows < 1 or header.columns < 1 or header.modality in _RESULTS:
        return True
    return header.for_processing or bool(_conversion(header))


def _modality(header: ImageHeader, accepted: Sequence[str]) -> str | None:
    if not accepted or header.modality in accepted:
        return None
    modality = _code(header.modality) if header.modality else "not given"
    return f"modality {modality}: this pipeline reads {', '.join(accepted)}"


def _pixels(header: ImageHeader) -> str | None:
    if header.rows < 1 or header.columns < 1:
        return "the instance has no pixels"
    if header.frames > 1:
        return f"{header.frames} frames in one instance: this pipeline reads single images"
    return None


def _conversion(header: ImageHeader) -> str | None:
    made = _MADE_BY.get(header.conversion_type)
    if header.conversion_type == "WSD" and not header.marked_up:
        return None
    return f"a picture made {made} (conversion type {header.conversion_type}), no film" if made else None


def _raw(header: ImageHeader) -> str | None:
    return "raw data FOR PROCESSING: the image for presentation is read" if header.for_processing else None


def _species(header: ImageHeader) -> str | None:
    if header.species.upper() not in _HUMAN or _words((*header.descriptions, header.study_description)) & _ANIMAL_WORDS:
        return "the image is of an animal, by its species or description"
    return None


def _body_part(header: ImageHeader, accepted: Sequence[str]) -> str | None:
    if not accepted or not header.body_part or header.body_part.upper() in accepted:
        return None
    return f"body part {_code(header.body_part)}: this model reads {', '.join(accepted)}"


def _view(header: ImageHeader, accepted: Sequence[str]) -> str | None:
    if not accepted:
        return None
    reads = f"this model reads {', '.join(accepted)} views"
    if header.view_position and header.view_position.upper() not in accepted:
        return f"view {_code(header.view_position)}: {reads}"
    stated = [_DIRECTION.fullmatch(value.upper()) for value in header.patient_orientation]
    directions = [match[0][0] for match in stated if match]
    if _SIDES & set(directions):
        return f"a lateral view, by its patient orientation: {reads}"
    if _FRONTAL & set(accepted) and len(directions) == len(_UPRIGHT) and directions != _UPRIGHT:
        shown = "\\".join(directions)
        return f"stored turned or mirrored, by its patient orientation {shown}: this model reads upright films"
    if not header.view_position and _is_lateral(header):
        return f"a lateral view, by its description: {reads}"
    return None


def _is_lateral(header: ImageHeader) -> bool:
    """Ask the series first: a study of two views has both in its description."""
    for texts in (header.descriptions, (header.study_description,)):
        words = _words(texts)
        if words & (_LATERAL_WORDS | _FRONTAL_WORDS):
            return not words & _FRONTAL_WORDS
    return False


def _size(header: ImageHeader, rules: Eligibility) -> str | None:
    if header.rows >= rules.minimum_rows and header.columns >= rules.minimum_columns:
        return None
    return (
        f"{header.rows} x {header.columns} pixels: this model needs at least "
        f"{rules.minimum_rows} x {rules.minimum_columns}"
    )


def _age(header: ImageHeader, rules: Eligibility) -> str | None:
    age = header.age_years
    if age is None or rules.minimum_age_years <= age <= rules.maximum_age_years:
        return None
    # The age itself is the patient's and stays out of the reason, which is logged.
    return f"the patient's age: this model reads {rules.minimum_age_years:g} to {rules.maximum_age_years:g} years"


def _code(value: str) -> str:
    """Return a code to quote. What is none may hold anything, and reasons are printed, kept and sent."""
    return value.upper() if _CODE.fullmatch(value.upper()) else "that is no code"


def _words(texts: Sequence[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in _WORD.findall(text.upper()))
