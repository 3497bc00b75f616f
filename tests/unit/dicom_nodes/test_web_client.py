from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_nodes.outgoing import SendFile
from dicom_nodes.status import Verdict
from dicom_nodes.web_client import Answer, WebDestination, _outcome_of, value

FILE = SendFile(
    path=Path("a.dcm"), sop_class_uid="1.2.1", sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.1"
)
STORED = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]}}
NOTHING = {"00081199": {"vr": "SQ"}, "00081198": {"vr": "SQ"}}


def failed(reason: int, uid: str = "1.2.3") -> dict[str, object]:
    item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


def warned(reason: int) -> dict[str, object]:
    item = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}, "00081196": {"vr": "US", "Value": [reason]}}
    return {"00081199": {"vr": "SQ", "Value": [item]}}


def verdict_of(status: int, content: object) -> Verdict:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return _outcome_of(FILE, Answer(status=status, content_type="application/dicom+json", content=body)).verdict


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (200, STORED, Verdict.DELIVERED),
        (200, [STORED], Verdict.DELIVERED),
        (200, b"", Verdict.DELIVERED),
        (202, warned(0xB000), Verdict.DELIVERED),
        # Orthanc answers 200 for a part that it passed over.
        (200, NOTHING, Verdict.RETRY),
        (200, failed(0xA700), Verdict.RETRY),
        (409, failed(0xA700), Verdict.RETRY),
        (409, failed(0x0110), Verdict.RETRY),
        (409, failed(0xA900), Verdict.REJECTED),
        (409, failed(0x0122), Verdict.REJECTED),
        (409, failed(0xC000, uid=""), Verdict.REJECTED),
        (202, failed(0x0000), Verdict.RETRY),
        (202, {**STORED, **failed(0xC000, uid="9.9")}, Verdict.DELIVERED),
        (409, b"", Verdict.RETRY),
        (409, b"<html>", Verdict.RETRY),
        (200, [[1], "x", 3], Verdict.RETRY),
        (400, b"", Verdict.REJECTED),
        (413, b"", Verdict.REJECTED),
        (415, b"", Verdict.REJECTED),
        (401, b"", Verdict.RETRY),
        (403, b"", Verdict.RETRY),
        (404, b"", Verdict.RETRY),
        (500, b"", Verdict.RETRY),
        (503, b"", Verdict.RETRY),
    ],
)
def test_an_answer_decides_between_delivered_retry_and_rejected(
    status: int, content: object, expected: Verdict
) -> None:
    assert verdict_of(status, content) is expected


@pytest.mark.parametrize("element", [None, [], {}, {"Value": []}, {"Value": [{}]}, {"Value": "x"}, {"Value": [None]}])
def test_an_element_without_a_plain_value_is_empty(element: object) -> None:
    assert value({"00081155": element}, "00081155") == ""


def test_a_destination_does_not_show_its_secrets() -> None:
    destination = WebDestination(url="https://pacs.example/dicom-web", token="sesame", password="mellon", user="u")  # noqa: S106
    assert "sesame" not in repr(destination)
    assert "mellon" not in repr(destination)
    assert destination.host == "pacs.example"
