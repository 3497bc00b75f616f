"""What we offer and ask for when an association is negotiated (PS3.8 section 7.1.1.13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context
from pynetdicom.sop_class import Verification

from dicom_nodes.references import AVAILABILITY, COMMITMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pynetdicom.presentation import PresentationContext

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
UNCOMPRESSED = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
VERIFICATION = str(Verification)
MAXIMUM_CONTEXTS = 128
"""Context identifiers are the odd numbers from 1 to 255."""


class Acceptable:
    """Every storage SOP class with every transfer syntax that pynetdicom knows, Verification, and notices to us."""

    def __init__(self) -> None:
        storage = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
        self.classes = frozenset(storage | {VERIFICATION, COMMITMENT, AVAILABILITY})
        self.syntaxes = frozenset(map(str, ALL_TRANSFER_SYNTAXES))
        # The peer that reports is the provider here, though it asks for the association (PS3.4 section J.3.3).
        self.both_roles = frozenset({COMMITMENT})


def proposals(
    kinds: Sequence[tuple[str, str]],
) -> Iterator[tuple[list[PresentationContext], set[tuple[str, str]]]]:
    """Split (SOP class, transfer syntax) pairs into proposals of at most 128 contexts.

    Each pair is a context of its own, so that the peer answers for it; each SOP class also gets one with the
    uncompressed syntaxes, to fall back on.

    Yields:
        The contexts of one association, and the pairs that it can carry.
    """
    remaining = sorted(set(kinds))
    while remaining:
        contexts: list[PresentationContext] = []
        carried: set[tuple[str, str]] = set()
        classes: set[str] = set()
        while remaining and len(contexts) + 2 <= MAXIMUM_CONTEXTS:
            sop_class, syntax = remaining.pop(0)
            contexts.append(build_context(sop_class, [syntax]))
            carried.add((sop_class, syntax))
            if sop_class not in classes:
                classes.add(sop_class)
                contexts.append(build_context(sop_class, list(UNCOMPRESSED)))
        yield contexts, carried
