"""An AuditMessage says who did what to which object, in the places where PS3.15 section A.5 has them."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree.ElementTree import Element, fromstring

import pytest

from service.audit import message
from service.audit.message import Action, Event, Outcome, Participant, Study, Subject, to_xml

AT = datetime(2026, 11, 23, 11, 5, 9, 250_000, tzinfo=UTC)


def written(about: Study | Subject, *participants: Participant, description: str = "") -> Element:
    event = Event(
        identity=message.INSTANCES_TRANSFERRED,
        action=Action.READ,
        outcome=Outcome.SERIOUS_FAILURE,
        participants=participants,
        description=description,
        about=about,
    )
    return fromstring(to_xml(event, at=AT, source="ai.example"))


def found(root: Element, path: str) -> Element:
    (element,) = root.findall(path)
    return element


def code_of(root: Element, path: str) -> tuple[str, str]:
    attributes = found(root, path).attrib
    return attributes["csd-code"], attributes["codeSystemName"]


STUDY = Study(study_instance_uid="1.2.3", instances={"1.2.840.1": ("2.25.1", "2.25.2")}, counts={"1.2.840.2": 7})


def test_when_where_and_how_it_ended_stand_at_the_beginning() -> None:
    root = written(STUDY, description="0xA700 out of resources")
    identification = found(root, "EventIdentification")
    assert identification.attrib == {
        "EventActionCode": "R",
        "EventDateTime": "2026-11-23T11:05:09.250+00:00",
        "EventOutcomeIndicator": "8",
    }
    assert found(root, "EventIdentification/EventOutcomeDescription").text == "0xA700 out of resources"
    assert found(root, "AuditSourceIdentification").attrib == {"AuditSourceID": "ai.example"}
    assert found(root, "AuditSourceIdentification/AuditSourceTypeCode").attrib["csd-code"] == "4"


@pytest.mark.parametrize("requestor", [True, False])
def test_a_participant_has_its_title_its_address_and_whether_it_asked(requestor: bool) -> None:
    peer = Participant(user_id="CT1", role=message.SOURCE_ROLE, requestor=requestor, ae_title="CT1", address="10.0.0.9")
    root = written(STUDY, peer)
    assert found(root, "ActiveParticipant").attrib == {
        "UserID": "CT1",
        "UserIsRequestor": "true" if requestor else "false",
        "AlternativeUserID": "AETITLES=CT1",
        "NetworkAccessPointID": "10.0.0.9",
        "NetworkAccessPointTypeCode": "2",
    }
    assert code_of(root, "ActiveParticipant/RoleIDCode") == ("110153", "DCM")


@pytest.mark.parametrize(("address", "kind"), [("10.0.0.9", "2"), ("2001:db8::1", "2"), ("pacs.example", "1")])
def test_a_machines_name_is_told_from_an_address(address: str, kind: str) -> None:
    peer = Participant(user_id="pacs", role=message.DESTINATION_ROLE, requestor=False, address=address)
    assert found(written(STUDY, peer), "ActiveParticipant").attrib["NetworkAccessPointTypeCode"] == kind


def test_a_process_has_neither_title_nor_address() -> None:
    root = written(STUDY, Participant(user_id="pellucid sender", role=message.APPLICATION, requestor=False))
    assert found(root, "ActiveParticipant").attrib == {"UserID": "pellucid sender", "UserIsRequestor": "false"}


def test_a_study_has_its_uid_and_every_instance_by_its_class() -> None:
    root = written(STUDY)
    study = root.findall("ParticipantObjectIdentification")[0]
    assert study.attrib == {
        "ParticipantObjectID": "1.2.3",
        "ParticipantObjectTypeCode": "2",
        "ParticipantObjectTypeCodeRole": "3",
    }
    assert code_of(study, "ParticipantObjectIDTypeCode") == ("110180", "DCM")
    told = [
        (entry.attrib["UID"], entry.attrib["NumberOfInstances"], [each.attrib["UID"] for each in entry])
        for entry in study.iter("SOPClass")
    ]
    assert told == [("1.2.840.1", "2", ["2.25.1", "2.25.2"]), ("1.2.840.2", "7", [])]


@pytest.mark.parametrize(("is_node", "expected"), [(True, ("110182", "DCM")), (False, ("12", "RFC-3881"))])
def test_what_is_no_study_is_a_node_or_a_file(is_node: bool, expected: tuple[str, str]) -> None:
    root = written(Subject(identifier="10.6.6.6", is_node=is_node))
    assert found(root, "ParticipantObjectIdentification").attrib["ParticipantObjectID"] == "10.6.6.6"
    assert code_of(root, "ParticipantObjectIdentification/ParticipantObjectIDTypeCode") == expected
    assert found(root, "ParticipantObjectIdentification/ParticipantObjectName").text == "10.6.6.6"
