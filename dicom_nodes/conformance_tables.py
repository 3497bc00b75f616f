"""The tables of the conformance statement, each worked out from the code that does what it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.charset import python_encoding
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_nodes import budgets, listener, negotiation, peers, status
from dicom_nodes.contexts import UNCOMPRESSED, VERIFICATION, Acceptable
from dicom_nodes.objects import codes, patient_study
from dicom_nodes.objects.catalogue import CATALOGUE
from dicom_nodes.objects.decode import NATIVE
from dicom_nodes.references import AVAILABILITY, COMMITMENT
from service.errors import InvalidInstanceError, OutOfSpaceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_QUERY = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Set a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def name_of(uid: str) -> str:
    """Return a UID's name by PS3.6 annex A."""
    return UID(uid).name.replace("|", "/")


def accepted() -> tuple[list[str], list[str]]:
    """Return the SOP classes and the transfer syntaxes that an association is granted, as negotiation grants them."""
    offered = [*(str(context.abstract_syntax) for context in AllStoragePresentationContexts)]
    offered += [VERIFICATION, COMMITMENT, AVAILABILITY, *(str(uid) for uid in _QUERY)]
    acceptable = Acceptable()
    order = [str(syntax) for syntax in ALL_TRANSFER_SYNTAXES if str(syntax) in acceptable.syntaxes]
    return [uid for uid in offered if uid in acceptable.classes], order


def storage_classes() -> list[str]:
    """Return the storage SOP classes that the listener accepts, by name."""
    others = {VERIFICATION, COMMITMENT, AVAILABILITY}
    return sorted((uid for uid in accepted()[0] if uid not in others), key=lambda uid: (name_of(uid), uid))


def overview() -> str:
    """Return the network services with their roles."""
    created = sorted({uid for entry in CATALOGUE for uid in entry.sop_classes}, key=name_of)
    rows = [
        (name_of(VERIFICATION), "yes", "yes"),
        (f"{len(storage_classes())} storage SOP classes, see 4.2.1.4", "`pellucid send`: all", "yes"),
        *((name_of(uid), "yes, created here", "yes") for uid in created),
        (name_of(COMMITMENT), "yes, optional", "no"),
        (name_of(AVAILABILITY), "no", "yes"),
        *((name_of(uid), "yes, `pellucid fetch`", "no") for uid in _QUERY),
    ]
    return table(("SOP class", "SCU", "SCP"), rows)


def web_services() -> str:
    """Return the DICOMweb services with their roles (PS3.18)."""
    rows = [
        ("Store Transaction (STOW-RS)", "yes", "yes, optional"),
        ("Search Transaction (QIDO-RS)", "yes", "no"),
        ("Retrieve Transaction (WADO-RS), study", "yes", "no"),
    ]
    return table(("service", "user agent", "origin server"), rows)


def accepted_classes() -> str:
    """Return every storage SOP class that is accepted."""
    return table(("SOP class", "UID"), [(name_of(uid), uid) for uid in storage_classes()])


def accepted_syntaxes() -> str:
    """Return every transfer syntax that is accepted for them, and whether a worker can read pixels in it."""
    rows = [(name_of(uid), uid, "yes" if _is_read(uid) else "no") for uid in accepted()[1]]
    return table(("transfer syntax", "UID", "analysed"), rows)


def _is_read(transfer_syntax: str) -> bool:
    if transfer_syntax in NATIVE:
        return True
    try:
        return bool(get_decoder(UID(transfer_syntax)).available_plugins)
    except NotImplementedError:
        return False


def proposed() -> str:
    """Return what the sender proposes for the objects that are created here."""
    rows = [
        (name_of(uid), uid, name_of(syntax), ", ".join(name_of(other) for other in UNCOMPRESSED))
        for uid, syntax in sorted(
            {(uid, entry.transfer_syntax) for entry in CATALOGUE for uid in entry.sop_classes},
            key=lambda pair: (name_of(pair[0]), pair[1]),
        )
    ]
    return table(("SOP class", "UID", "first context", "second context, to fall back on"), rows)


def created() -> str:
    """Return the objects that are created."""
    rows = [
        (
            f"`{entry.output}`",
            " or ".join(name_of(uid) for uid in entry.sop_classes),
            entry.modality,
            f"base + {entry.place}",
            name_of(entry.transfer_syntax),
            "images, series" if entry.images else "series",
        )
        for entry in CATALOGUE
    ]
    return table(("output", "SOP class", "modality", "series number", "transfer syntax", "made of"), rows)


def store_statuses() -> str:
    """Return what the listener answers to C-STORE and when."""
    rows = [
        (status.SUCCESS, "the instance is on disk and in the ledger; also when it was there with equal content"),
        (status.answer_for(OutOfSpaceError()).status, "no room, the instance is too large, or a fault of ours: later"),
        (status.answer_for(status.MismatchError()).status, "the data set is of another SOP class than the request"),
        (status.answer_for(InvalidInstanceError()).status, "the data set cannot be read, or a UID is none"),
    ]
    return table(("status", "when"), [(status.describe(code), when) for code, when in rows])


def sender_statuses() -> str:
    """Return what the sender makes of each status of a C-STORE response."""
    known = (0x0000, 0x0111, 0xB000, 0xB006, 0xB007, 0x0117, 0x0122, 0x0124, 0x0110, 0x0213, 0xA700, 0xA900, 0xC000)
    return table(("status", "then"), [(status.describe(code), str(status.verdict(code))) for code in known])


def rejections() -> str:
    """Return why associations are rejected."""
    reasons = (
        listener.CALLED_NOT_RECOGNISED,
        listener.CALLING_NOT_RECOGNISED,
        peers.NOT_KNOWN,
        peers.NOT_ITSELF,
        peers.TOO_MANY,
        budgets.LIMIT_EXCEEDED,
        negotiation.UNSUPPORTED_VERSION,
        negotiation.UNSUPPORTED_APPLICATION_CONTEXT,
    )
    rows = [(str(each.result), str(each.source), str(each.diagnostic), each.reason) for each in reasons]
    return table(("result", "source", "diagnostic", "when"), rows)


def copied_attributes() -> str:
    """Return which attributes of patient and study an object takes from its source."""
    required = ", ".join(patient_study.REQUIRED)
    optional = ", ".join(patient_study.OPTIONAL)
    return table(
        ("always present, empty where the source is silent", "when the source has them, well formed"),
        [(required, optional)],
    )


def private_concepts() -> str:
    """Return the coded concepts of our own scheme."""
    return table(("code value", "meaning"), [(f"`{key}`", text) for key, text in codes.PRIVATE_CONCEPTS.items()])


def character_sets() -> str:
    """Return the Specific Character Set terms that are read."""
    return ", ".join(f"`{term}`" for term in sorted(python_encoding) if term)
