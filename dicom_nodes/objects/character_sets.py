"""Finds the character set that an instance really uses, when its declaration cannot be true (PS3.5 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.charset import convert_encodings, python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset
    from pydicom.tag import BaseTag

UTF_8 = "ISO_IR 192"
LATIN_1 = "ISO_IR 100"
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_ESCAPE = 0x1B
_FIRST_NON_ASCII = 0x80


def declare_actual(dataset: Dataset) -> None:
    """Correct Specific Character Set in place where the text contradicts it.

    A declaration that fits is believed even if another would read better: the PACS shows the source by it,
    and our objects must show the same name. A missing or unknown declaration, or UTF-8 that is none,
    becomes UTF-8 if the text is valid UTF-8, else Latin-1.
    """
    declared = _declared(dataset)
    texts = [text for text in _raw_texts(dataset) if _needs_character_set(text)]
    if not texts:
        if not all(_known(term) for term in declared):
            _declare(dataset, UTF_8)
        return
    if declared and all(_known(term) for term in declared) and _fits(declared, texts):
        return
    _declare(dataset, UTF_8 if _is_utf_8(texts) else LATIN_1)


def _declare(dataset: Dataset, term: str) -> None:
    dataset.SpecificCharacterSet = term
    # Elements not yet converted are decoded by what was read, not by what the attribute says now.
    implicit, little = dataset.original_encoding
    dataset.set_original_encoding(implicit, little, convert_encodings(term))


def _declared(dataset: Dataset) -> list[str]:
    value = dataset.get("SpecificCharacterSet")
    terms = [str(term).strip() for term in ([value] if isinstance(value, str) else value or [])]
    return terms if any(terms) else []


def _known(term: str) -> bool:
    return term in python_encoding


def _raw_texts(dataset: Dataset) -> Iterator[bytes]:
    for tag in dataset.keys():  # noqa: SIM118 - iterating the data set itself would convert its elements
        element = dataset.get_item(tag)
        value = getattr(element, "value", None)
        if isinstance(value, bytes) and _vr(tag, getattr(element, "VR", None)) in _TEXT_VRS:
            yield value


def _vr(tag: BaseTag, explicit: str | None) -> str:
    """Return the VR, from the dictionary where implicit encoding does not say."""
    return explicit or (dictionary_VR(tag) if dictionary_has_tag(tag) else "")


def _needs_character_set(text: bytes) -> bool:
    return any(byte >= _FIRST_NON_ASCII or byte == _ESCAPE for byte in text)


def _fits(declared: list[str], texts: list[bytes]) -> bool:
    if declared == [UTF_8]:
        return _is_utf_8(texts)
    # The default repertoire alone has no byte above 127 and no escape sequence.
    return any(term not in {"", "ISO_IR 6", "ISO 2022 IR 6"} for term in declared)


def _is_utf_8(texts: list[bytes]) -> bool:
    try:
        for text in texts:
            text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
