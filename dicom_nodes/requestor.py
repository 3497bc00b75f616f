"""Associations that we ask for, with or without TLS; why there is none is said in words."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom import AE, _config, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_nodes.objects.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from service.errors import DestinationError
from service.tls import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
    from pynetdicom.presentation import PresentationContext

MAXIMUM_PDU_BYTES = 131072


class NotAcceptedError(DestinationError):
    """The peer associates, but knows none of the SOP classes."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A peer and the AE titles to use with it."""

    host: str
    port: int
    called: str
    calling: str
    timeout_s: float = 30.0
    tls: ssl.SSLContext | None = None
    """Speak TLS."""
    certificate: str = ""
    """SHA-256 fingerprint or subject that the peer's certificate must have; see `Identity.matches`."""


@contextmanager
def associated(
    to: Destination,
    contexts: list[PresentationContext],
    *,
    handlers: Sequence[tuple[Any, Callable[[Any], Any]]] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """Associate, and release in the end.

    Args:
        to: the peer.
        contexts: what to propose.
        handlers: pynetdicom's events and what answers them, for what the peer asks of us.
        roles: roles of SOP classes that differ from the usual (PS3.7 annex D.3.3.4).

    Raises:
        DestinationError: there is no association; the message says why.
    """
    # A switch for all of pynetdicom: data sets are never logged.
    _config.LOG_HANDLER_LEVEL = "none"
    connected: list[bool] = []

    def opened(event: Any) -> None:
        connected.append(True)
        connection = event.assoc.dul.socket.socket
        # Without this each object waits for the peer's delayed acknowledgement, 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # pynetdicom would wait for ever for a peer that takes no more, and could not even abort.
        connection.settimeout(to.timeout_s)

    try:
        association = _entity(to).associate(
            to.host,
            to.port,
            contexts=contexts,
            ae_title=to.called,
            max_pdu=MAXIMUM_PDU_BYTES,
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_CONN_OPEN, opened), *handlers],
            tls_args=(to.tls, to.host) if to.tls else None,
        )
    except socket.gaierror:
        raise DestinationError(f"{to.called} at {to.host}:{to.port}: no name server knows this host") from None
    if not association.is_established:
        reason = _why(association, to, connected=bool(connected))
        raise NotAcceptedError(reason) if association.rejected_contexts else DestinationError(reason)
    _check_certificate(association, to)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _check_certificate(association: Association, to: Destination) -> None:
    """Abort unless the peer showed the certificate that it must have; nothing but AE titles was said so far."""
    if not to.certificate:
        return
    connection = association.dul.socket.socket
    identity = identity_of(connection) if isinstance(connection, ssl.SSLSocket) else None
    if identity is None or not identity.matches(to.certificate):
        association.abort()
        raise DestinationError(f"{to.called} at {to.host}:{to.port} shows another certificate than [peers] names")


def _entity(to: Destination) -> AE:
    entity = AE(to.calling)
    entity.connection_timeout = to.timeout_s
    entity.acse_timeout = to.timeout_s
    entity.dimse_timeout = to.timeout_s
    entity.network_timeout = to.timeout_s
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return entity


def _why(association: Association, to: Destination, *, connected: bool) -> str:
    place = f"{to.called} at {to.host}:{to.port}"
    rejection = _rejection(association)
    if rejection is not None:
        return f"{place} rejected the association: {rejection.reason_str}"
    if not connected:
        if to.tls:
            return f"{place} is out of reach, or TLS was not established: check its certificate and ours"
        return f"{place} is out of reach: nothing listens there, or a firewall is between"
    if association.rejected_contexts:
        return f"{place} accepts none of the SOP classes and transfer syntaxes"
    return f"{place} ended the connection without an association"


def _rejection(association: Association) -> A_ASSOCIATE | None:
    if association.is_rejected:
        return association.acceptor.primitive
    # A peer that rejects at once has closed the connection before pynetdicom looks whether it is open: then the
    # rejection was received and nobody has read it.
    unread = association.dul.receive_pdu()
    return unread if isinstance(unread, A_ASSOCIATE) and unread.result != 0 else None
