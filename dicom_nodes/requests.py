"""Requests of a peer and what serves them, without their transport (PS3.7 sections 9 and 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dicom_nodes import dimse
from dicom_nodes.headers import is_uid
from dicom_nodes.references import MAXIMUM_NOTICE_BYTES
from dicom_nodes.status import RESOURCE_LIMITATION, SUCCESS, Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_nodes.contexts import Acceptable
    from service.tls import Identity


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Who is at the other end of an association."""

    association: str
    """A name of our own for this association."""
    calling_ae: str
    called_ae: str
    address: str
    identity: Identity | None = None
    """The certificate it showed, over TLS."""


@dataclass(frozen=True, kw_only=True)
class StoreCommand:
    """A C-STORE request without its data set. The UIDs are as the peer wrote them: unchecked."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    peer: Peer
    study_instance_uid: str = ""
    """The only study that the instance may be of; empty: any."""


@dataclass(frozen=True, kw_only=True)
class EchoCommand:
    """A C-ECHO request."""

    message_id: int


@dataclass(frozen=True, kw_only=True)
class NoticeCommand:
    """An N-EVENT-REPORT or N-CREATE request without its data set: the peer tells us something."""

    message_id: int
    field: int
    """Command field: `dimse.N_EVENT_REPORT` or `dimse.N_CREATE`; another one only to be refused."""
    sop_class_uid: str
    sop_instance_uid: str
    event_type: int
    """0 with N-CREATE."""
    transfer_syntax_uid: str
    peer: Peer


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why an association is rejected (PS3.8 table 9-21)."""

    result: int
    source: int
    diagnostic: int
    reason: str


class Reception(Protocol):
    """One data set while it arrives."""

    def write(self, data: memoryview) -> None:
        """Take a piece of the data set; a reception that failed drops it."""

    def finish(self) -> Answer:
        """Make the instance durable and say what to answer; called once."""

    def discard(self) -> None:
        """The rest will never come: leave nothing behind."""


class Service(Protocol):
    """What an association is served with."""

    def admit(self, peer: Peer) -> Rejection | None:
        """Decide whether a peer may associate."""

    def contexts(self) -> Acceptable:
        """Return the presentation contexts that are accepted."""

    def begin(self, command: StoreCommand) -> Reception:
        """Begin to receive an instance."""

    def notice(self, command: NoticeCommand, data: bytes) -> Answer:
        """Take note of what a peer tells us; `data` is its encoded data set."""

    def leaves(self, peer: Peer) -> None:
        """An admitted association ends, in whatever way, and the peer is about to hear of it: its place is free."""

    def ended(self, peer: Peer) -> None:
        """An association that left is over: write it down; nobody waits for that."""


class Refused:
    """An instance that is not wanted: its data set is read to the end and dropped, then answered."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def write(self, data: memoryview) -> None:
        """Drop a piece."""

    def finish(self) -> Answer:
        """Say why."""
        return self._answer

    def discard(self) -> None:
        """Nothing was kept."""


class Noticed:
    """A short data set, collected in memory and then handed on."""

    def __init__(self, take: Callable[[bytes], Answer]) -> None:
        self._take = take
        self._data = bytearray()
        self._too_long = False

    def write(self, data: memoryview) -> None:
        """Append a piece, within the limit."""
        self._too_long = self._too_long or len(self._data) + len(data) > MAXIMUM_NOTICE_BYTES
        if not self._too_long:
            self._data += data

    def finish(self) -> Answer:
        """Hand it on."""
        if self._too_long:
            return Answer(status=RESOURCE_LIMITATION, comment="the data set is too long")
        return self._take(bytes(self._data))

    def discard(self) -> None:
        """Nothing was kept."""


def response(command: StoreCommand | EchoCommand | NoticeCommand, answer: Answer) -> bytes:
    """Encode the answer to a request; a UID that is none is not repeated."""
    elements: dict[int, int | str] = {
        dimse.COMMAND_FIELD: _field(command) | dimse.RESPONSE,
        dimse.RESPONDS_TO: command.message_id,
        dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
        dimse.STATUS: answer.status,
    }
    if isinstance(command, EchoCommand):
        elements[dimse.AFFECTED_SOP_CLASS] = "1.2.840.10008.1.1"
    else:
        if is_uid(command.sop_class_uid):
            elements[dimse.AFFECTED_SOP_CLASS] = command.sop_class_uid
        if is_uid(command.sop_instance_uid):
            elements[dimse.AFFECTED_SOP_INSTANCE] = command.sop_instance_uid
    if isinstance(command, NoticeCommand) and command.field == dimse.N_EVENT_REPORT:
        elements[dimse.EVENT_TYPE] = command.event_type
    if answer.comment and answer.status != SUCCESS:
        elements[dimse.ERROR_COMMENT] = answer.comment
    return dimse.encode_command(elements)


def _field(command: StoreCommand | EchoCommand | NoticeCommand) -> int:
    if isinstance(command, NoticeCommand):
        return command.field
    return dimse.C_STORE if isinstance(command, StoreCommand) else dimse.C_ECHO
