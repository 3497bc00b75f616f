from __future__ import annotations

import struct
import time

import pytest
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)

from dicom_nodes.contexts import VERIFICATION, Acceptable
from dicom_nodes.dimse import ProtocolError
from dicom_nodes.negotiation import UNSUPPORTED_VERSION, agree, read_request, reject
from dicom_nodes.references import COMMITMENT
from dicom_nodes.upper_layer import MAXIMUM_REQUEST_BYTES

CR, IMPLICIT, JPEG = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70"


def pynetdicoms_request(*contexts: tuple[str, list[str]], roles: tuple[bool, bool] | None = None) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "CT1", "PELLUCID"
    proposed = [build_context(name, syntaxes) for name, syntaxes in contexts]
    for index, context in enumerate(proposed):
        context.context_id = 2 * index + 1
    primitive.presentation_context_definition_list = proposed
    maximum, implementation, user = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        UserIdentityNegotiation(),
    )
    maximum.maximum_length_received = 4096
    implementation.implementation_class_uid = "1.2.3"
    user.user_identity_type, user.primary_field = 1, b"somebody"
    primitive.user_information = [maximum, implementation, user]
    if roles:
        selection = SCP_SCU_RoleSelectionNegotiation()
        selection.sop_class_uid = COMMITMENT
        selection.scu_role, selection.scp_role = roles
        primitive.user_information.append(selection)
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def answer(request: bytes) -> tuple[A_ASSOCIATE, dict[int, tuple[str, str]]]:
    agreement = agree(read_request(request), Acceptable(), maximum_pdu_bytes=131072)
    pdu = A_ASSOCIATE_AC()
    pdu.decode(agreement.pdu)
    return pdu.to_primitive(), agreement.contexts


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def context(identifier: int, *parts: bytes) -> bytes:
    return item(0x20, bytes([identifier, 0, 0, 0]) + b"".join(parts))


APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
USER = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
CLASS, SYNTAX = item(0x30, CR.encode()), item(0x40, IMPLICIT.encode())


def request(items: bytes, *, version: int = 1, calling: bytes = b"CT1             ") -> bytes:
    body = struct.pack(">HH16s16s32x", version, 0, b"PELLUCID        ", calling) + items
    return struct.pack(">BBL", 1, 0, len(body)) + body


def test_an_answer_is_what_another_implementation_reads() -> None:
    accepted, contexts = answer(
        pynetdicoms_request(
            (CR, [JPEG, IMPLICIT]), ("1.2.3.4", [IMPLICIT]), (CR, ["1.2.3.5"]), (VERIFICATION, [IMPLICIT])
        )
    )
    assert [entry.result for entry in accepted.presentation_context_definition_results_list] == [0, 3, 4, 0]
    assert contexts == {1: (CR, JPEG), 7: (VERIFICATION, IMPLICIT)}
    assert accepted.maximum_length_received == 131072
    assert (accepted.calling_ae_title, accepted.called_ae_title) == ("CT1", "PELLUCID")
    assert accepted.application_context_name == "1.2.840.10008.3.1.1.1"


def test_what_a_request_says_is_read() -> None:
    read = read_request(pynetdicoms_request((CR, [IMPLICIT])))
    assert (read.calling_ae, read.called_ae, read.maximum_pdu_bytes, read.rejection) == ("CT1", "PELLUCID", 4096, None)


def test_whoever_reports_a_commitment_may_be_its_provider() -> None:
    accepted, contexts = answer(pynetdicoms_request((COMMITMENT, [IMPLICIT]), roles=(False, True)))
    (granted,) = [i for i in accepted.user_information if isinstance(i, SCP_SCU_RoleSelectionNegotiation)]
    assert (granted.scu_role, granted.scp_role) == (False, True)
    assert contexts == {1: (COMMITMENT, IMPLICIT)}


def test_a_rejection_is_what_another_implementation_reads() -> None:
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(reject(UNSUPPORTED_VERSION))
    primitive = pdu.to_primitive()
    assert (primitive.result, primitive.result_source, primitive.diagnostic) == (1, 2, 2)


def test_another_protocol_version_or_application_is_rejected() -> None:
    rejections = [
        read_request(request(APPLICATION + context(1, CLASS, SYNTAX) + USER, version=2)).rejection,
        read_request(request(context(1, CLASS, SYNTAX) + USER)).rejection,
        read_request(request(APPLICATION + context(1, CLASS, SYNTAX) + USER, calling=bytes(16))).rejection,
    ]
    assert [entry and entry.diagnostic for entry in rejections] == [2, 2, 3]


@pytest.mark.parametrize(
    ("proposal", "result"),
    [
        (context(1, CLASS), 4),
        (context(1, SYNTAX), 3),
        (context(1, CLASS, CLASS, SYNTAX), 3),
        (context(1, item(0x30, b""), item(0x40, b"")), 3),
        (context(1, item(0x30, b"\xff\xfe../.."), item(0x40, b"\xff")), 3),
        (context(1, item(0x30, b"1." * 200), SYNTAX), 3),
        (context(1), 3),
    ],
)
def test_a_context_that_makes_no_sense_is_refused_and_the_others_are_served(proposal: bytes, result: int) -> None:
    accepted, contexts = answer(request(APPLICATION + proposal + context(3, CLASS, SYNTAX) + USER))
    assert [entry.result for entry in accepted.presentation_context_definition_results_list] == [result, 0]
    assert contexts == {3: (CR, IMPLICIT)}


@pytest.mark.parametrize(
    "items",
    [
        APPLICATION + context(2, CLASS, SYNTAX) + USER,
        APPLICATION + context(1, CLASS, SYNTAX) * 2 + USER,
        APPLICATION + b"".join(context(1 + 2 * (index % 128), CLASS, SYNTAX) for index in range(1000)) + USER,
        item(0x20, b"") * 100,
        APPLICATION + context(1, CLASS, SYNTAX) + b"\x50\x00\xff\xff",
        APPLICATION + context(1, CLASS, SYNTAX) + USER + b"\x00\x00\x00",
        APPLICATION + context(1, b"\x30\x00\x00\xff1.2"),
        APPLICATION + item(0x50, item(0x51, b"\x01")),
        APPLICATION + item(0x50, item(0x54, b"\xff\xff1.2")),
        APPLICATION + item(0x50, item(0x54, b"")),
    ],
)
def test_a_request_that_breaks_the_standard_is_none(items: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_request(request(items))


@pytest.mark.parametrize("title", [b"CT1\nadmitted: me", b"\xffCT1\xfe          ", b"A\\B             "])
def test_an_ae_title_that_could_forge_a_log_line_is_none(title: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_request(request(APPLICATION + USER, calling=title))


def test_an_ae_title_filled_up_with_zeros_is_read() -> None:
    assert read_request(request(APPLICATION + USER, calling=b"CT1".ljust(16, b"\0"))).calling_ae == "CT1"


def test_items_that_only_offer_something_are_passed_over() -> None:
    offers = (
        item(0x53, bytes(4)) + item(0x56, b"\xff\xff") + item(0x57, b"") + item(0x58, b"\x02\x01") + item(0x99, b"x")
    )
    _, contexts = answer(request(APPLICATION + context(1, CLASS, SYNTAX) + item(0x50, offers) + item(0x77, b"")))
    assert contexts == {1: (CR, IMPLICIT)}


def test_the_longest_request_takes_no_more_time_than_a_few_hundred_short_ones() -> None:
    syntaxes = item(0x40, b"1.2") * 8000
    longest = request(APPLICATION + b"".join(context(1 + 2 * index, CLASS, syntaxes) for index in range(4)) + USER)
    assert len(longest) < MAXIMUM_REQUEST_BYTES
    short = request(APPLICATION + context(1, CLASS, SYNTAX) + USER)
    begun = time.process_time()
    for _ in range(500):
        answer_of(short)
    between = time.process_time()
    answer_of(longest)
    # A general decoder takes two thousand times as long.
    assert time.process_time() - between < 5 * (between - begun) + 0.1


def answer_of(pdu: bytes) -> bytes:
    return agree(read_request(pdu), Acceptable(), maximum_pdu_bytes=131072).pdu
