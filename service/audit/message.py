"""DICOM audit messages: PS3.15 section A.5, as XML. They hold UIDs and AE titles, never who the patient is."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, tostring

from service.concepts import Code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

APPLICATION_ACTIVITY = Code(value="110100", scheme="DCM", meaning="Application Activity")
AUDIT_LOG_USED = Code(value="110101", scheme="DCM", meaning="Audit Log Used")
BEGIN_TRANSFERRING = Code(value="110102", scheme="DCM", meaning="Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code(value="110103", scheme="DCM", meaning="DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code(value="110104", scheme="DCM", meaning="DICOM Instances Transferred")
SECURITY_ALERT = Code(value="110113", scheme="DCM", meaning="Security Alert")

APPLICATION_START = Code(value="110120", scheme="DCM", meaning="Application Start")
APPLICATION_STOP = Code(value="110121", scheme="DCM", meaning="Application Stop")
NODE_AUTHENTICATION = Code(value="110126", scheme="DCM", meaning="Node Authentication")
USE_OF_RESTRICTED_FUNCTION = Code(value="110132", scheme="DCM", meaning="Use of Restricted Function")

APPLICATION = Code(value="110150", scheme="DCM", meaning="Application")
DESTINATION_ROLE = Code(value="110152", scheme="DCM", meaning="Destination Role ID")
SOURCE_ROLE = Code(value="110153", scheme="DCM", meaning="Source Role ID")

_STUDY_INSTANCE_UID = Code(value="110180", scheme="DCM", meaning="Study Instance UID")
_NODE_ID = Code(value="110182", scheme="DCM", meaning="Node ID")
_PATIENT_NUMBER = Code(value="2", scheme="RFC-3881", meaning="Patient Number")
_URI = Code(value="12", scheme="RFC-3881", meaning="URI")
WITHHELD = "withheld"
"""In place of the patient's number: the templates ask for one, this log keeps none."""
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_APPLICATION_SERVER = "4"
_MACHINE_NAME, _IP_ADDRESS = "1", "2"


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(StrEnum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


@dataclass(frozen=True, kw_only=True)
class Participant:
    """An active participant: an application entity or a process."""

    user_id: str
    role: Code
    requestor: bool
    ae_title: str = ""
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The study that an event is about."""

    study_instance_uid: str
    instances: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """SOP Instance UIDs by SOP Class UID."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Number of instances by SOP Class UID, where the UIDs are not listed."""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A node or file that an event without a study is about."""

    identifier: str
    is_node: bool
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened."""

    identity: Code
    action: Action
    outcome: Outcome
    participants: tuple[Participant, ...]
    kind: Code | None = None
    """EventTypeCode."""
    description: str = ""
    """EventOutcomeDescription."""
    about: Study | Subject | None = None


def to_xml(event: Event, *, at: datetime, source: str) -> str:
    """Write an event as an AuditMessage.

    Args:
        event: what happened.
        at: when, with its time zone.
        source: AuditSourceID: which system says so.
    """
    root = Element("AuditMessage")
    identification = SubElement(
        root,
        "EventIdentification",
        EventActionCode=event.action,
        EventDateTime=at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=event.outcome,
    )
    _code(identification, "EventID", event.identity)
    if event.kind:
        _code(identification, "EventTypeCode", event.kind)
    if event.description:
        SubElement(identification, "EventOutcomeDescription").text = event.description
    for participant in event.participants:
        _participant(root, participant)
    origin = SubElement(root, "AuditSourceIdentification", AuditSourceID=source)
    SubElement(origin, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    if isinstance(event.about, Study):
        _study(root, event.about)
    elif event.about:
        _subject(root, event.about)
    _clean(root)
    return tostring(root, encoding="unicode")


def _clean(root: Element) -> None:
    """Replace what XML 1.0 cannot hold: a peer writes what it likes into its AE title."""
    for element in root.iter():
        element.text = _FORBIDDEN.sub("\ufffd", element.text) if element.text else None
        for name, value in element.attrib.items():
            element.attrib[name] = _FORBIDDEN.sub("\ufffd", value)


def _participant(root: Element, participant: Participant) -> None:
    attributes = {"UserID": participant.user_id, "UserIsRequestor": "true" if participant.requestor else "false"}
    if participant.ae_title:
        attributes["AlternativeUserID"] = f"AETITLES={participant.ae_title}"
    if participant.address:
        kind = _kind_of_access_point(participant.address)
        attributes |= {"NetworkAccessPointID": participant.address, "NetworkAccessPointTypeCode": kind}
    _code(SubElement(root, "ActiveParticipant", attributes), "RoleIDCode", participant.role)


def _kind_of_access_point(address: str) -> str:
    try:
        ip_address(address)
    except ValueError:
        return _MACHINE_NAME
    return _IP_ADDRESS


def _study(root: Element, study: Study) -> None:
    entry = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=study.study_instance_uid,
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    _code(entry, "ParticipantObjectIDTypeCode", _STUDY_INSTANCE_UID)
    _details(entry, study.details)
    description = SubElement(entry, "ParticipantObjectDescription")
    for sop_class, uids in study.instances.items():
        listed = SubElement(description, "SOPClass", UID=sop_class, NumberOfInstances=str(len(uids)))
        for uid in uids:
            SubElement(listed, "Instance", UID=uid)
    for sop_class, count in study.counts.items():
        SubElement(description, "SOPClass", UID=sop_class, NumberOfInstances=str(count))
    patient = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=WITHHELD,
        ParticipantObjectTypeCode="1",
        ParticipantObjectTypeCodeRole="1",
    )
    _code(patient, "ParticipantObjectIDTypeCode", _PATIENT_NUMBER)
    SubElement(patient, "ParticipantObjectName").text = WITHHELD


def _subject(root: Element, subject: Subject) -> None:
    entry = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=subject.identifier,
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="13",
    )
    _code(entry, "ParticipantObjectIDTypeCode", _NODE_ID if subject.is_node else _URI)
    SubElement(entry, "ParticipantObjectName").text = subject.identifier
    _details(entry, subject.details)


def _details(entry: Element, details: Mapping[str, str]) -> None:
    # Values are base64 by the schema (A.5.1), so that nothing in them can be taken for markup.
    for name, value in details.items():
        SubElement(entry, "ParticipantObjectDetail", type=name, value=base64.b64encode(value.encode()).decode("ascii"))


def _code(parent: Element, name: str, code: Code) -> None:
    SubElement(parent, name, {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning})
