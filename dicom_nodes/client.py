"""Our side as requestor: C-ECHO, and C-STORE of files as they are, without decoding them."""

from __future__ import annotations

import itertools
import socket
import ssl
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.dsutils import split_dataset
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_nodes.contexts import UNCOMPRESSED, VERIFICATION, proposals
from dicom_nodes.headers import is_uid
from dicom_nodes.objects.files import dicom_files
from dicom_nodes.objects.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_nodes.status import SUCCESS, Verdict, describe, verdict
from dicom_nodes.transmission import transmit
from service.errors import DestinationError, InvalidInstanceError
from service.tls import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

MAXIMUM_PDU_BYTES = 131072
_BARREN = 2
"""So many associations in a row without one answer, and the peer is left alone for now."""


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


@dataclass(frozen=True, kw_only=True)
class SendFile:
    """A DICOM file, by its file meta information."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, kw_only=True)
class SendOutcome:
    """What became of one file."""

    path: Path
    verdict: Verdict
    status: int | None
    """DIMSE status; None when there was no answer."""
    reason: str
    """In words, when it is not plain success."""


def send_files(  # noqa: PLR0917 -- the order is that of storescu
    paths: Iterable[Path],
    host: str,
    port: int,
    called: str,
    calling: str,
    on_progress: Callable[[SendOutcome], None] = lambda _outcome: None,
) -> list[SendOutcome]:
    """Send files, folders and what a DICOMDIR names.

    Returns:
        One outcome per file; what lies in folders and is no DICOM file is passed over.
    """
    found: list[SendFile] = []
    outcomes: list[SendOutcome] = []
    for path in dicom_files(paths):
        try:
            found.append(read_file(path))
        except InvalidInstanceError as error:
            outcomes.append(_outcome(path, Verdict.REJECTED, str(error)))
            on_progress(outcomes[-1])
    to = Destination(host=host, port=port, called=called, calling=calling)
    for outcome in send(found, to):
        outcomes.append(outcome)
        on_progress(outcome)
    return outcomes


def echo(host: str, port: int, called: str, calling: str, *, timeout_s: float = 10.0) -> None:
    """Verify a peer by C-ECHO; see `verify`."""
    verify(Destination(host=host, port=port, called=called, calling=calling, timeout_s=timeout_s))


def verify(to: Destination) -> None:
    """Verify a destination by C-ECHO.

    Raises:
        DestinationError: out of reach, refused or no answer; the message says which.
    """
    place = f"{to.host}:{to.port}"
    with _associated(to, [build_context(VERIFICATION, list(UNCOMPRESSED))]) as association:
        status = association.send_c_echo()
        if "Status" not in status:
            raise DestinationError(f"{place} gave no answer to C-ECHO")
        if status.Status != SUCCESS:
            raise DestinationError(f"{place} answered {describe(status.Status)}")


def send(files: Sequence[SendFile], to: Destination) -> Generator[SendOutcome]:
    """Send files, in as many associations as their presentation contexts take.

    Yields:
        One outcome per file as soon as it is known. Stopping early releases the association.
    """
    for contexts, carried in proposals([(file.sop_class_uid, file.transfer_syntax_uid) for file in files]):
        batch = [file for file in files if (file.sop_class_uid, file.transfer_syntax_uid) in carried]
        yield from _send_batch(batch, contexts, to)


def read_file(path: Path) -> SendFile:
    """Read the file meta information.

    Raises:
        InvalidInstanceError: the file is missing, is no DICOM file, or does not say what it holds.
    """
    try:
        meta, _ = split_dataset(path)
    except OSError as error:
        raise InvalidInstanceError(f"cannot be read: {error.strerror}") from None
    except (InvalidDicomError, ValueError, EOFError, KeyError, NotImplementedError):
        raise InvalidInstanceError("is no DICOM file") from None
    file = SendFile(
        path=path,
        sop_class_uid=str(meta.get("MediaStorageSOPClassUID", "")),
        sop_instance_uid=str(meta.get("MediaStorageSOPInstanceUID", "")),
        transfer_syntax_uid=str(meta.get("TransferSyntaxUID", "")),
    )
    if not all(map(is_uid, (file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid))):
        raise InvalidInstanceError("its file meta information lacks SOP class, instance or transfer syntax")
    return file


def _send_batch(
    batch: Sequence[SendFile], contexts: list[PresentationContext], to: Destination
) -> Iterator[SendOutcome]:
    waiting = deque(batch)
    barren = 0
    message_ids = itertools.cycle(range(1, 65536))
    reason = f"{to.host}:{to.port} ends every association without an answer"
    while waiting and barren < _BARREN:
        answered = 0
        try:
            with _associated(to, contexts) as association:
                while waiting and association.is_established:
                    outcome = _store(association, waiting.popleft(), next(message_ids), to.timeout_s)
                    answered += outcome.status is not None
                    yield outcome
        except DestinationError as error:
            reason = str(error)
            break
        barren = 0 if answered else barren + 1
    for file in waiting:
        yield _outcome(file.path, Verdict.RETRY, reason)


def _store(association: Association, file: SendFile, message_id: int, timeout_s: float) -> SendOutcome:
    accepted = {
        (str(context.abstract_syntax), str(context.transfer_syntax[0])): int(context.context_id)
        for context in association.accepted_contexts
    }
    context_id = accepted.get((file.sop_class_uid, file.transfer_syntax_uid))
    if context_id is None:
        return _store_converted(association, file, set(accepted))
    try:
        status = transmit(
            association,
            file.path,
            offset=split_dataset(file.path)[1],
            context_id=context_id,
            sop_class_uid=file.sop_class_uid,
            sop_instance_uid=file.sop_instance_uid,
            message_id=message_id,
            timeout_s=timeout_s,
        )
    except DestinationError as error:
        return _outcome(file.path, Verdict.RETRY, str(error))
    return _answered(file, status)


def _store_converted(association: Association, file: SendFile, accepted: set[tuple[str, str]]) -> SendOutcome:
    """Send with another transfer syntax, because the peer refuses the file's own."""
    if not any((file.sop_class_uid, syntax) in accepted for syntax in UNCOMPRESSED):
        return _outcome(file.path, Verdict.RETRY, f"the peer does not accept SOP class {file.sop_class_uid}")
    try:
        dataset = dcmread(file.path)
        if file.transfer_syntax_uid not in UNCOMPRESSED:
            dataset.decompress(generate_instance_uid=False)
    except Exception as error:  # noqa: BLE001 -- decoders raise whatever damaged pixels make them raise
        return _outcome(
            file.path,
            Verdict.REJECTED,
            f"the peer refuses transfer syntax {file.transfer_syntax_uid}, and it cannot be decoded here "
            f"({type(error).__name__})",
        )
    try:
        answer = association.send_c_store(dataset)
    except (ValueError, AttributeError, RuntimeError, OSError) as error:
        return _outcome(file.path, Verdict.RETRY, f"could not be sent ({type(error).__name__})")
    if "Status" not in answer:
        return _outcome(file.path, Verdict.RETRY, "the association ended while waiting for the answer")
    return _answered(file, int(answer.Status))


def _answered(file: SendFile, status: int) -> SendOutcome:
    reason = "" if status == SUCCESS else describe(status)
    return SendOutcome(path=file.path, verdict=verdict(status), status=status, reason=reason)


def _outcome(path: Path, result: Verdict, reason: str) -> SendOutcome:
    return SendOutcome(path=path, verdict=result, status=None, reason=reason)


@contextmanager
def _associated(to: Destination, contexts: list[PresentationContext]) -> Iterator[Association]:
    """Associate, and release in the end.

    Raises:
        DestinationError: there is no association; the message says why.
    """
    # A switch for all of pynetdicom: data sets are never logged.
    _config.LOG_HANDLER_LEVEL = "none"
    connected: list[bool] = []

    def opened(event: Any) -> None:
        connected.append(True)
        # Without this each object waits for the peer's delayed acknowledgement, 40 ms.
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    association = _entity(to).associate(
        to.host,
        to.port,
        contexts=contexts,
        ae_title=to.called,
        max_pdu=MAXIMUM_PDU_BYTES,
        evt_handlers=[(evt.EVT_CONN_OPEN, opened)],
        tls_args=(to.tls, to.host) if to.tls else None,
    )
    if not association.is_established:
        raise DestinationError(_why(association, to, connected=bool(connected)))
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
