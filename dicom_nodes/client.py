"""Our side as requestor: C-ECHO, and C-STORE of files as they are, without decoding them."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import build_context
from pynetdicom.dsutils import split_dataset

from dicom_nodes.contexts import UNCOMPRESSED, VERIFICATION, proposals
from dicom_nodes.headers import is_uid
from dicom_nodes.objects.files import dicom_files
from dicom_nodes.outgoing import SendFile, SendOutcome
from dicom_nodes.requestor import Destination, NotAcceptedError, associated
from dicom_nodes.status import SUCCESS, Verdict, describe, verdict
from dicom_nodes.transmission import transmit
from service.errors import DestinationError, InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

_BARREN = 2
"""So many associations in a row without one answer, and the peer is left alone for now."""


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
    with associated(to, [build_context(VERIFICATION, list(UNCOMPRESSED))]) as association:
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
    reason, away = f"{to.host}:{to.port} ends every association without an answer", False
    while waiting and barren < _BARREN:
        answered = 0
        try:
            with associated(to, contexts) as association:
                while waiting and association.is_established:
                    outcome = _store(association, waiting.popleft(), next(message_ids), to.timeout_s)
                    answered += outcome.status is not None
                    yield outcome
        except DestinationError as error:
            reason, away = str(error), not isinstance(error, NotAcceptedError)
            break
        barren = 0 if answered else barren + 1
    for file in waiting:
        yield SendOutcome(path=file.path, verdict=Verdict.RETRY, status=None, reason=reason, unreachable=away)


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
