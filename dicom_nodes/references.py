"""Short data sets with references to instances: Storage Commitment (PS3.4 annex J), Instance Availability (annex R)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import Dataset, Sequence
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from service.errors import InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMMITMENT = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP Instance."""
AVAILABILITY = "1.2.840.10008.5.1.4.33"
"""Instance Availability Notification SOP Class."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event types of Storage Commitment (PS3.4 table J.3-2)."""
MAXIMUM_NOTICE_BYTES = 1 << 22
"""Of the data set of a notice, which is held in memory; 20,000 references take 3 MB."""
_AVAILABLE = frozenset({"", "ONLINE", "NEARLINE", "OFFLINE"})


@dataclass(frozen=True, kw_only=True)
class CommitmentReport:
    """What a peer answered to a request for storage commitment."""

    transaction_uid: str
    committed: frozenset[str]
    """SOP Instance UIDs."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Failure reason (PS3.4 table J.3-4) of each SOP Instance UID."""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """What a peer says that a study consists of."""

    study_instance_uid: str
    sop_instance_uids: frozenset[str]


def commitment_request(transaction_uid: str, instances: Iterable[tuple[str, str]]) -> Dataset:
    """Build the action information of N-ACTION for (SOP class, SOP instance) pairs."""
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = Sequence([_reference(*instance) for instance in instances])
    return request


def read_commitment_report(report: Dataset) -> CommitmentReport:
    """Read the event information of N-EVENT-REPORT.

    Raises:
        InvalidInstanceError: it names no transaction.
    """
    transaction = str(report.get("TransactionUID") or "")
    if not transaction:
        raise InvalidInstanceError("a storage commitment report without a transaction UID")
    return CommitmentReport(
        transaction_uid=transaction,
        committed=frozenset(_instances(report.get("ReferencedSOPSequence"))),
        failed={
            str(item.get("ReferencedSOPInstanceUID", "")): int(item.get("FailureReason") or 0)
            for item in report.get("FailedSOPSequence") or ()
        },
    )


def read_availability(notice: Dataset) -> Availability:
    """Read an Instance Availability Notification (PS3.4 table R.3.2-1).

    Raises:
        InvalidInstanceError: it names no study or no instance that can be had.
    """
    study = str(notice.get("StudyInstanceUID") or "")
    uids = frozenset(
        uid
        for series in notice.get("ReferencedSeriesSequence") or ()
        for uid in _instances(series.get("ReferencedSOPSequence"))
    )
    if not study or not uids:
        raise InvalidInstanceError("a notification that names no study or no available instance")
    return Availability(study_instance_uid=study, sop_instance_uids=uids)


def decode_notice(data: bytes, transfer_syntax_uid: str) -> Dataset:
    """Decode a short data set that a peer sent.

    Raises:
        InvalidInstanceError: it is none, or is longer than `MAXIMUM_NOTICE_BYTES` once it is inflated.
    """
    syntax = UID(transfer_syntax_uid)
    try:
        if syntax.is_deflated:
            data = _inflated(data)
        dataset: Dataset = decode(BytesIO(data), syntax.is_implicit_VR, syntax.is_little_endian)
        # Elements are converted when they are looked at: do it here, where it may fail.
        dataset.walk(lambda _dataset, _element: None)
    except Exception:  # noqa: BLE001 -- pydicom raises whatever garbage makes it raise
        raise InvalidInstanceError("a data set that cannot be read") from None
    return dataset


def _inflated(data: bytes) -> bytes:
    """Inflate (PS3.5 annex A.5) no more than a notice may have: 4 MB may stand for 4 GB."""
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAXIMUM_NOTICE_BYTES + 1)
    if len(inflated) > MAXIMUM_NOTICE_BYTES:
        raise InvalidInstanceError("a data set that is too long")
    return inflated


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _instances(items: Iterable[Dataset] | None) -> list[str]:
    return [
        str(item.ReferencedSOPInstanceUID)
        for item in items or ()
        if item.get("ReferencedSOPInstanceUID") and str(item.get("InstanceAvailability") or "") in _AVAILABLE
    ]
