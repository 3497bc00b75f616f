"""DIMSE statuses (PS3.7 annex C, PS3.4 table B.2-1): what ours mean, and what we make of others'."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from service.errors import InvalidInstanceError, RetryableError

SUCCESS = 0x0000
DUPLICATE_INSTANCE = 0x0111
PROCESSING_FAILURE = 0x0110
INVALID_ARGUMENT = 0x0115
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORIZED = 0x0124
UNRECOGNIZED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000

_NAMES = {
    0x0000: "success",
    0x0107: "attribute list error",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0112: "no such SOP instance",
    0x0115: "invalid argument value",
    0x0117: "invalid SOP instance",
    0x0118: "no such SOP class",
    0x0119: "class-instance conflict",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xB000: "coercion of data elements",
    0xB006: "elements discarded",
    0xB007: "data set does not match SOP class (warning)",
}
_RANGES = {0xA7: "out of resources", 0xA9: "data set does not match SOP class"}
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007})
_REFUSED_FOR_CAUSE = frozenset({0x0117, 0x0118, 0x0119, 0x0122, 0x0124, 0x0211, 0x0212})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The status of a C-STORE response with its error comment, at most 64 characters and no patient data."""

    status: int
    comment: str = ""


class MismatchError(InvalidInstanceError):
    """The data set is of another SOP class than the request says."""


class Verdict(StrEnum):
    """What becomes of an object after a peer answered."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REJECTED = "rejected"


def answer_for(error: Exception) -> Answer:
    """Map an error of ours to a status.

    Whatever is our fault is "out of resources": the one failure after which senders come back later.
    """
    if isinstance(error, MismatchError):
        return Answer(status=DOES_NOT_MATCH_SOP_CLASS, comment=_comment(error))
    if isinstance(error, InvalidInstanceError):
        return Answer(status=CANNOT_UNDERSTAND, comment=_comment(error))
    if isinstance(error, RetryableError):
        return Answer(status=OUT_OF_RESOURCES, comment=_comment(error))
    return Answer(status=OUT_OF_RESOURCES, comment="internal failure, try again later")


def verdict(status: int) -> Verdict:
    """Decide by a peer's status: delivered, worth another try, or refused for cause.

    Out of resources (A7xx) and what nobody defined pass with time. That a data set does not match, cannot be
    understood (A9xx, Cxxx) or is not supported does not: sending the same bytes again would end alike.
    """
    if status in (SUCCESS, DUPLICATE_INSTANCE) or status in _WARNINGS or status >> 12 == 0xB:  # noqa: PLR2004
        return Verdict.DELIVERED
    if status in _REFUSED_FOR_CAUSE or status >> 8 == 0xA9 or status >> 12 == 0xC:  # noqa: PLR2004
        return Verdict.REJECTED
    return Verdict.RETRY


def describe(status: int) -> str:
    """Put a status into words, for example `0xA700 out of resources`."""
    name = _NAMES.get(status) or _RANGES.get(status >> 8)
    if name is None:
        name = {0xB: "warning", 0xC: "cannot understand"}.get(status >> 12, "status without a definition")
    return f"0x{status:04X} {name}"


def _comment(error: Exception) -> str:
    text = str(error).encode("ascii", "replace").decode().replace("\\", "/")
    return text[:64]
