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
_ANIMAL_WORDS = frozenset(
    {"CANINE", "FELINE", "EQUINE", "BOVINE", "VET", "VETERINARY", "DOG", "CAT", "HORSE", "CANIS", "FELIS"}
)
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
        _species(header),
        _body_part(header, rules.body_parts),
        _view(header, rules.views),
        _size(header, rules),
        _age(header, rules),
    )
    return next((reason for reason in checks if reason), None)


def is_result(header: ImageHeader) -> bool:
    """Tell whether an instance is no image that somebody took: a report, marks, what a program or workstation made."""
    return header.rows < 1 or header.columns < 1 or header.modality in _RESULTS or bool(_conversion(header))


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


def _species(header: ImageHeader) -> str | None:
    if header.species.upper() not in _HUMAN or _words(header) & _ANIMAL_WORDS:
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
    if header.view_position:
        return None if header.view_position.upper() in accepted else f"view {_code(header.view_position)}: {reads}"
    first = header.patient_orientation[0][:1] if header.patient_orientation else ""
    if first in _SIDES:
        return f"a lateral view, by its patient orientation: {reads}"
    words = _words(header)
    if words & _LATERAL_WORDS and not words & _FRONTAL_WORDS:
        return f"a lateral view, by its description: {reads}"
    return None


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


def _words(header: ImageHeader) -> frozenset[str]:
    return frozenset(word for text in header.descriptions for word in _WORD.findall(text.upper()))
