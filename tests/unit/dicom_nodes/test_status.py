from __future__ import annotations

import pytest

from dicom_nodes.status import MismatchError, Verdict, answer_for, describe, verdict
from service.errors import InvalidInstanceError, OutOfSpaceError


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0000, Verdict.DELIVERED),
        (0x0111, Verdict.DELIVERED),
        (0xB000, Verdict.DELIVERED),
        (0xB006, Verdict.DELIVERED),
        (0xB007, Verdict.DELIVERED),
        (0xA700, Verdict.RETRY),
        (0xA7FF, Verdict.RETRY),
        (0x0110, Verdict.RETRY),
        (0x4711, Verdict.RETRY),
        (0xA900, Verdict.REJECTED),
        (0xA9FF, Verdict.REJECTED),
        (0xC000, Verdict.REJECTED),
        (0xCFFF, Verdict.REJECTED),
        (0x0117, Verdict.REJECTED),
        (0x0122, Verdict.REJECTED),
        (0x0124, Verdict.REJECTED),
    ],
)
def test_a_status_decides_between_delivered_retry_and_rejected(status: int, expected: Verdict) -> None:
    assert verdict(status) is expected


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfSpaceError("full"), 0xA700),
        (MismatchError("other class"), 0xA900),
        (InvalidInstanceError("no UID"), 0xC000),
        (RuntimeError("Mustermann^Erika"), 0xA700),
    ],
)
def test_an_error_becomes_a_status(error: Exception, status: int) -> None:
    assert answer_for(error).status == status


def test_an_unforeseen_error_tells_the_peer_nothing_of_its_text() -> None:
    assert "Mustermann" not in answer_for(RuntimeError("Mustermann^Erika")).comment


def test_a_comment_fits_its_element() -> None:
    comment = answer_for(InvalidInstanceError("ü\\" * 100)).comment
    assert len(comment) == 64
    assert comment.isascii()
    assert "\\" not in comment


def test_a_status_is_described_in_words() -> None:
    assert describe(0xA701) == "0xA701 out of resources"
    assert describe(0xC123) == "0xC123 cannot understand"
    assert describe(0x9999) == "0x9999 status without a definition"
