from __future__ import annotations

import struct

import pytest

from dicom_nodes import dimse
from dicom_nodes.dimse import ProtocolError, command_pdus, encode_command, number, split_command, text
from dicom_nodes.requests import EchoCommand, NoticeCommand, Peer, StoreCommand, response
from dicom_nodes.status import Answer

PEER = Peer(association="a", calling_ae="PACS", called_ae="PELLUCID", address="127.0.0.1")


def store(sop_instance_uid: str = "1.2.3") -> StoreCommand:
    return StoreCommand(
        message_id=7,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid="1.2.840.10008.1.2",
        peer=PEER,
    )


def test_a_command_set_survives_encoding() -> None:
    elements = split_command(encode_command({dimse.MESSAGE_ID: 5, dimse.AFFECTED_SOP_CLASS: "1.2.3"}))
    assert number(elements, dimse.MESSAGE_ID) == 5
    assert text(elements, dimse.AFFECTED_SOP_CLASS) == "1.2.3"
    assert elements[0] == struct.pack("<I", 24)


@pytest.mark.parametrize("garbage", [b"garbage!" * 4, struct.pack("<HHI", 0, 2, 99) + b"short"])
def test_what_is_no_command_set_is_a_protocol_error(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        split_command(garbage)


def test_a_number_must_have_two_bytes() -> None:
    with pytest.raises(ProtocolError):
        number({dimse.MESSAGE_ID: b"123"}, dimse.MESSAGE_ID)


def test_a_long_command_is_cut_into_what_the_peer_takes() -> None:
    pdus = command_pdus(bytes(100), 3, longest_pdu_bytes=46)
    assert [pdus[start + 11] for start in (0, 52, 104)] == [1, 1, 3]
    assert len(pdus) == 100 + 3 * 12


def test_a_uid_that_is_none_is_not_repeated_in_the_answer() -> None:
    elements = split_command(response(store("../../etc"), Answer(status=0xC000, comment="malformed")))
    assert dimse.AFFECTED_SOP_INSTANCE not in elements
    assert number(elements, dimse.STATUS) == 0xC000
    assert elements[dimse.ERROR_COMMENT] == b"malformed "


def test_answers_carry_the_request_that_they_belong_to() -> None:
    report = NoticeCommand(
        message_id=9,
        field=dimse.N_EVENT_REPORT,
        sop_class_uid="1.2.840.10008.1.20.1",
        sop_instance_uid="1.2.840.10008.1.20.1.1",
        event_type=2,
        transfer_syntax_uid="1.2.840.10008.1.2",
        peer=PEER,
    )
    for command, field in ((store(), 0x8001), (EchoCommand(message_id=7), 0x8030), (report, 0x8100)):
        elements = split_command(response(command, Answer(status=0)))
        assert number(elements, dimse.COMMAND_FIELD) == field
        assert number(elements, dimse.RESPONDS_TO) == command.message_id
    assert number(elements, dimse.EVENT_TYPE) == 2
