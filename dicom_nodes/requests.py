"""Requests of a peer and what serves them: C-ECHO and C-STORE (PS3.7 section 9), without their transport."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol

from pynetdicom.dimse_primitives import C_ECHO, C_STORE

from dicom_nodes.headers import is_uid
from dicom_nodes.status import SUCCESS, Answer
from dicom_nodes.upper_layer import ProtocolError


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Who is at the other end of an association."""

    association: str
    """A name of our own for this association."""
    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, kw_only=True)
class StoreCommand:
    """A C-STORE request without its data set. The UIDs are as the peer wrote them: unchecked."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    peer: Peer


@dataclass(frozen=True, kw_only=True)
class EchoCommand:
    """A C-ECHO request."""

    message_id: int


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why an association is rejected (PS3.8 table 9-21)."""

    result: int
    source: int
    diagnostic: int
    reason: str


class Reception(Protocol):
    """One instance while it arrives."""

    def write(self, data: memoryview) -> None:
        """Take a piece of the data set; a reception that failed drops it."""

    def finish(self) -> Answer:
        """Make the instance durable and say what to answer; called once, in another thread than `write`."""

    def discard(self) -> None:
        """The rest will never come: leave nothing behind."""


class Service(Protocol):
    """What an association is served with."""

    def admit(self, peer: Peer) -> Rejection | None:
        """Decide whether a peer may associate."""

    def contexts(self, proposed: list[Any]) -> list[Any]:
        """Choose the supported presentation contexts for a proposal."""

    def begin(self, command: StoreCommand) -> Reception:
        """Begin to receive an instance."""

    def ended(self, peer: Peer) -> None:
        """An admitted association ended, in whatever way."""


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


def echo_response(command: EchoCommand) -> C_ECHO:
    """Answer a C-ECHO."""
    response = C_ECHO()
    response.MessageIDBeingRespondedTo = command.message_id
    response.Status = SUCCESS
    return response


def store_response(command: StoreCommand, answer: Answer) -> C_STORE:
    """Answer a C-STORE; a UID that is none is not repeated."""
    response = C_STORE()
    response.MessageIDBeingRespondedTo = command.message_id
    if is_uid(command.sop_class_uid):
        response.AffectedSOPClassUID = command.sop_class_uid
    if is_uid(command.sop_instance_uid):
        response.AffectedSOPInstanceUID = command.sop_instance_uid
    response.Status = answer.status
    if answer.comment:
        response.ErrorComment = answer.comment
    return response


def split_command(command: bytearray) -> dict[int, bytes]:
    """Split a command set: implicit little endian, group 0000 (PS3.7 section 6.3.1).

    Raises:
        ProtocolError: it is none.
    """
    elements: dict[int, bytes] = {}
    position = 0
    while position + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHI", command, position)
        value = bytes(command[position + 8 : position + 8 + length])
        if group != 0 or len(value) != length:
            raise ProtocolError("a command set that is none")
        elements[element] = value
        position += 8 + length
    return elements


def number(elements: dict[int, bytes], element: int) -> int:
    """Return an element of VR US."""
    value = elements.get(element, b"")
    if len(value) != 2:  # noqa: PLR2004
        raise ProtocolError("a command set without one of its numbers")
    return int.from_bytes(value, "little")


def text(elements: dict[int, bytes], element: int) -> str:
    """Return an element of VR UI, unchecked; empty when it is missing."""
    return elements.get(element, b"").decode("latin-1").rstrip(" \x00")
