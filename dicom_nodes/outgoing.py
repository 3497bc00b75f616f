"""A file on its way out, by C-STORE or STOW-RS, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_nodes.status import Verdict


@dataclass(frozen=True, kw_only=True)
class SendFile:
    """A DICOM file, by its file meta information."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, kw_only=True)
class SendOutcome:
    """What became of one file."""

    path: Path
    verdict: Verdict
    status: int | None
    """DIMSE status; None when there was no answer."""
    reason: str
    """In words, when it is not plain success."""
    unreachable: bool = False
    """The peer as a whole is away: no other file would get through either."""
