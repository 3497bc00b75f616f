"""Answers an A-ASSOCIATE-RQ (PS3.8 section 7.1, PS3.7 annex D.3) with pynetdicom's PDUs, without its threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import negotiate_as_acceptor

from dicom_nodes.dimse import ProtocolError
from dicom_nodes.objects.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_nodes.requests import Rejection

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_PROTOCOL_VERSION = 0x0001
_ACCEPTED = 0x00
UNSUPPORTED_VERSION = Rejection(result=1, source=2, diagnostic=2, reason="another protocol version than 1")
UNSUPPORTED_APPLICATION_CONTEXT = Rejection(result=1, source=1, diagnostic=2, reason="another application context")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a peer asks for."""

    primitive: A_ASSOCIATE
    calling_ae: str
    called_ae: str
    maximum_pdu_bytes: int
    """The longest PDU that the peer takes; 0 is no limit."""
    rejection: Rejection | None
    """What the request itself gives reason to reject it for."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What was negotiated."""

    pdu: bytes
    """A-ASSOCIATE-AC."""
    contexts: dict[int, tuple[str, str]]
    """(SOP class, transfer syntax) of each accepted context, by its identifier."""


def read_request(pdu: bytearray) -> Request:
    """Read an A-ASSOCIATE-RQ.

    Raises:
        ProtocolError: it is none.
    """
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(bytes(pdu))
        primitive = request.to_primitive()
        return Request(
            primitive=primitive,
            calling_ae=primitive.calling_ae_title.strip(),
            called_ae=primitive.called_ae_title.strip(),
            maximum_pdu_bytes=int(primitive.maximum_length_received or 0),
            rejection=_rejection(request.protocol_version, primitive),
        )
    except Exception:  # noqa: BLE001 -- pynetdicom's decoders raise whatever garbage makes them raise
        raise ProtocolError("an A-ASSOCIATE-RQ that cannot be read") from None


def agree(request: Request, supported: list[PresentationContext], *, maximum_pdu_bytes: int) -> Agreement:
    """Negotiate presentation contexts and roles.

    Args:
        request: what the peer asks for.
        supported: our contexts, with the roles that the peer may take.
        maximum_pdu_bytes: longest PDU that we take.
    """
    asked = request.primitive
    roles = {
        str(item.sop_class_uid): (item.scu_role, item.scp_role)
        for item in asked.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    results, granted = negotiate_as_acceptor(asked.presentation_context_definition_list, supported, roles)
    accepted = A_ASSOCIATE()
    accepted.application_context_name = UID(_APPLICATION_CONTEXT)
    accepted.calling_ae_title = asked.calling_ae_title
    accepted.called_ae_title = asked.called_ae_title
    accepted.result = 0x00
    accepted.result_source = 0x01
    accepted.presentation_context_definition_results_list = results
    accepted.user_information = [_maximum_length(maximum_pdu_bytes), *_implementation(), *granted]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(accepted)
    return Agreement(
        pdu=bytes(pdu.encode()),
        contexts={
            int(context.context_id): (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in results
            if context.result == _ACCEPTED
        },
    )


def reject(rejection: Rejection) -> bytes:
    """Encode an A-ASSOCIATE-RJ."""
    primitive = A_ASSOCIATE()
    primitive.result = rejection.result
    primitive.result_source = rejection.source
    primitive.diagnostic = rejection.diagnostic
    pdu = A_ASSOCIATE_RJ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _rejection(version: int, primitive: A_ASSOCIATE) -> Rejection | None:
    if not version & _PROTOCOL_VERSION:
        return UNSUPPORTED_VERSION
    if str(primitive.application_context_name) != _APPLICATION_CONTEXT:
        return UNSUPPORTED_APPLICATION_CONTEXT
    return None


def _maximum_length(count: int) -> MaximumLengthNotification:
    item = MaximumLengthNotification()
    item.maximum_length_received = count
    return item


def _implementation() -> tuple[ImplementationClassUIDNotification, ImplementationVersionNameNotification]:
    uid, version = ImplementationClassUIDNotification(), ImplementationVersionNameNotification()
    uid.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return uid, version
