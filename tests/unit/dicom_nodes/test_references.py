from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset

from dicom_nodes.commitment import failure
from dicom_nodes.references import (
    MAXIMUM_NOTICE_BYTES,
    commitment_request,
    decode_notice,
    read_availability,
    read_commitment_report,
)
from dicom_nodes.status import Verdict
from service.errors import InvalidInstanceError

IMPLICIT = "1.2.840.10008.1.2"


def encoded(dataset: Dataset) -> bytes:
    buffer = DicomFileLike(BytesIO())
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, dataset)
    return bytes(buffer.parent.getvalue())


def report(*, failed: dict[str, int] | None = None) -> Dataset:
    dataset = commitment_request("1.2.3", [("1.2.840.10008.5.1.4.1.1.7", "1.1"), ("1.2.840.10008.5.1.4.1.1.7", "1.2")])
    dataset.FailedSOPSequence = []
    for uid, reason in (failed or {}).items():
        item = Dataset()
        item.ReferencedSOPInstanceUID, item.FailureReason = uid, reason
        dataset.FailedSOPSequence.append(item)
    return dataset


def test_a_report_survives_encoding() -> None:
    found = read_commitment_report(decode_notice(encoded(report(failed={"1.9": 0x0112})), IMPLICIT))
    assert found.transaction_uid == "1.2.3"
    assert found.committed == {"1.1", "1.2"}
    assert found.failed == {"1.9": 0x0112}


def test_a_report_without_a_transaction_is_refused() -> None:
    with pytest.raises(InvalidInstanceError):
        read_commitment_report(Dataset())


def test_unavailable_instances_of_a_notification_do_not_count() -> None:
    notice, series = Dataset(), Dataset()
    series.ReferencedSOPSequence = []
    for uid, availability in (("1.1", "ONLINE"), ("1.2", "UNAVAILABLE"), ("1.3", "NEARLINE")):
        item = Dataset()
        item.ReferencedSOPInstanceUID, item.InstanceAvailability = uid, availability
        series.ReferencedSOPSequence.append(item)
    notice.StudyInstanceUID = "1.2"
    notice.ReferencedSeriesSequence = [series]
    assert read_availability(notice).sop_instance_uids == {"1.1", "1.3"}
    del notice.StudyInstanceUID
    with pytest.raises(InvalidInstanceError):
        read_availability(notice)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (0x0112, Verdict.RETRY),
        (0x0213, Verdict.RETRY),
        (0x0122, Verdict.REJECTED),
        (0x0119, Verdict.REJECTED),
        (0x4711, Verdict.RETRY),
    ],
)
def test_a_failure_reason_decides_between_another_try_and_giving_up(reason: int, expected: Verdict) -> None:
    found, words = failure(reason)
    assert found is expected
    assert f"0x{reason:04X}" in words


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_a_damaged_notice_is_read_or_refused(position: int, damage: bytes) -> None:
    data = bytearray(encoded(report(failed={"1.9": 1})))
    position %= len(data)
    data[position : position + len(damage)] = damage
    try:
        read_commitment_report(decode_notice(bytes(data), IMPLICIT))
    except InvalidInstanceError:
        assert data


def test_a_deflated_notice_is_read_and_one_that_swells_is_refused() -> None:
    deflated = "1.2.840.10008.1.2.1.99"

    def packed(data: bytes) -> bytes:
        press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return press.compress(data) + press.flush()

    element = struct.pack("<HH2sH", 0x0008, 0x1195, b"UI", 4) + b"1.7\0"
    assert decode_notice(packed(element), deflated).TransactionUID == "1.7"
    bomb = packed(bytes(1 << 28))
    assert len(bomb) < MAXIMUM_NOTICE_BYTES
    tracemalloc.start()
    with pytest.raises(InvalidInstanceError):
        decode_notice(bomb, deflated)
    assert tracemalloc.get_traced_memory()[1] < 4 * MAXIMUM_NOTICE_BYTES
    tracemalloc.stop()
